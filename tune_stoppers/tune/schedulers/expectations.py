"""What a scheduler expects of trials by earlier sweeps: its `history=`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tune_stoppers.history import History, Prior
from tune_stoppers.history.sources import Source
from tune_stoppers.surrogate.encoding import Floats
from tune_stoppers.surrogate.prior import trust
from tune_stoppers.surrogate.trial_scores import TrialLosses, normal_scores
from tune_stoppers.tune.live import Live
from tune_stoppers.tune.ray_internals.types import Trial

Asked = Source | Sequence[Source] | History  # what `history=` takes

FEWEST_TOLD = 4  # trials that have reported when it is first said how much came true
MOST_TOLD = 12  # earlier sweeps of which that is said


class Expectations(Live):
    """What a history expects of configurations: asked anew only where there are others."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.prior: Prior | None = None  # as last asked
        self._of: dict[int, float] = {}
        self._alone: list[Expectations] | None = None  # of each sweep by itself
        self._told = 0  # trials that had reported when the journal was last told; 0: never

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

    def news(
        self,
        reported: Sequence[tuple[Mapping[str, Any], TrialLosses]],
        known: Sequence[Mapping[str, Any]],
    ) -> dict[str, Any]:
        """What is new since it was last asked, for the journal."""
        news: dict[str, Any] = {}
        if not self._told and self.prior is not None:
            news["history"] = list(self.prior.said)
        self._told = self._told or 1
        if len(reported) >= max(FEWEST_TOLD, 2 * self._told):
            self._told = len(reported)
            news["came_true"] = {"after": len(reported), "of": self._came_true(reported, known)}
        return news

    def _came_true(
        self,
        reported: Sequence[tuple[Mapping[str, Any], TrialLosses]],
        known: Sequence[Mapping[str, Any]],
    ) -> dict[str, float]:
        """By earlier sweep, the slope of how trials do on what it expected (`surrogate.prior`)."""
        values = normal_scores([standing for _, standing in reported])
        configs = [config for config, _ in reported]
        if self._alone is None:
            parts = [replace(self.history, sweeps=(sweep,)) for sweep in self.history.sweeps]
            self._alone = [Expectations(part) for part in parts[:MOST_TOLD]]
        slopes = {}
        for alone in self._alone:
            expected = alone.among(configs, known)
            if expected is not None:
                slopes[alone.history.sweeps[0].name] = round(trust(values, expected).slope, 2)
        return slopes


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

    def told_of_start(self, trial: Trial, known: Sequence[Trial]) -> dict[str, Any]:
        """What the journal is to say of a trial that starts, one of those known.

        `expected` of it; with the first one `history`, what was read; and as often as twice as many
        trials have reported `came_true`, how much of what each sweep expected has come true.
        """
        expected = self.expected_of([trial], known)
        if expected is None or self._expectations is None:
            return {}
        told: dict[str, Any] = {"expected": round(float(expected[0]), 3)}
        standing = self.standing  # type: ignore[attr-defined]  # of the other base
        reported = [(t.config, s) for t in known if (s := standing(t)) is not None]
        return told | self._expectations.news(reported, [t.config for t in known])

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
