"""The Hugging Face Trainer inside a Tune trial."""
