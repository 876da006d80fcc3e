"""Real fine-tune sweeps of language models, run from a checkout and not installed."""
