"""What a scheduler expects of trials by earlier sweeps: its `history=`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tune_stoppers.history import History, Prior
from tune_stoppers.history.sources import Source
from tune_stoppers.surrogate.encoding import Floats
from tune_stoppers.tune.live import Live
from tune_stoppers.tune.ray_internals.types import Trial

Asked = Source | Sequence[Source] | History  # what `history=` takes


class Expectations(Live):
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

    def among(
        self, asked: Sequence[Mapping[str, Any]], known: Sequence[Mapping[str, Any]]
    ) -> Floats | None:
        """The same of some of the configurations known, which are matched as a whole."""
        self.expected(known)
        return self.expected(asked)


class WithHistory:
    """A scheduler that begins with what earlier sweeps know; stands before its other base.

    `take_history` is called before the base's `__init__`. What was taken from the earlier sweeps
    is part of the scheduler that Ray keeps for a restore; their folders are not read again.
    """

    history: History | None = None  # also of a scheduler that an earlier version has kept
    _expectations: Expectations | None = None

    def take_history(self, history: Asked | None) -> None:
        """Read it; errors of `History.of`."""
        self.history = None if history is None else History.of(history)

    @property
    def takes_history(self) -> bool:
        """Whether it can make use of one, as it was constructed."""
        return True

    def begin_with(self, history: History) -> None:
        """Take this history: a scheduler that was just constructed, as if it was given there."""
        self.history = history
        self._begin()

    def _begin(self) -> None:
        self._expectations = None if self.history is None else Expectations(self.history)
        super()._begin()  # type: ignore[misc]  # of the other base

    def expected_of(self, asked: Sequence[Trial], known: Iterable[Trial]) -> Floats | None:
        """What is expected of these trials, among all known; None where nothing is."""
        if self._expectations is None:
            return None
        return self._expectations.among([t.config for t in asked], [t.config for t in known])

    @property
    def said_of_history(self) -> tuple[str, ...]:
        """Sentences on what earlier sweeps were used, and what was left out; () without any."""
        if self._expectations is not None and self._expectations.prior is not None:
            return self._expectations.prior.said
        return () if self.history is None else self.history.said
