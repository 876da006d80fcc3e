"""What `AutoScheduler` knows only while its sweep runs: its model, and what that said last."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tune_stoppers.history import History, Prior
from tune_stoppers.rules.sweep.rung import Times
from tune_stoppers.surrogate.acquisition.expected_improvement import (
    Comparison,
    ExpectedImprovementAcquisition,
)
from tune_stoppers.surrogate.encoding import Floats
from tune_stoppers.surrogate.loss_scale import Curve
from tune_stoppers.tune.live import Live
from tune_stoppers.tune.ray_internals.types import Trial


class Expectations:
    """What a history expects of configurations: asked anew only where there are others."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.prior: Prior | None = None  # as last asked
        self._of: dict[int, float] = {}

    def expected(self, configs: Sequence[Mapping[str, Any]]) -> Floats | None:
        """The standing of each, in normal scores (lower is better), times how far it is trusted.

        None where nothing is known.
        """
        if not self._of.keys() >= {id(config) for config in configs}:
            prior = self.prior = self.history.prior(configs)
            values = (prior.trust * prior.expected).tolist()
            self._of = {id(config): v for config, v in zip(configs, values, strict=True)}
        if self.prior is None or not self.prior.trust:
            return None
        return np.array([self._of[id(config)] for config in configs])


class Said(NamedTuple):
    """A comparison, and whom its places are."""

    compared: Comparison | None
    trials: list[Trial]  # new ones first
    new: int  # how many of them


class Beliefs(Live):
    """The model, and what it said last."""

    def __init__(self, history: History | None) -> None:
        self.history = Expectations(history) if history is not None else None
        self.order = ExpectedImprovementAcquisition(self.history)
        self.turn = 0  # grows with whatever may change a choice
        self.said: tuple[int, Said] | None = None  # at which turn, and what
        self.judged: dict[str, int] = {}  # at which rung a trial was last compared, without a pause
        self.curves: dict[str, tuple[int, float, Times, Curve]] = {}  # of each trial, as last made
        self.hopeless = False
