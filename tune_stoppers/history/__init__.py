"""Earlier sweeps as prior knowledge: what they make one expect of the next sweep's trials."""

from tune_stoppers.history.history import History as History
from tune_stoppers.history.history import Prior as Prior
