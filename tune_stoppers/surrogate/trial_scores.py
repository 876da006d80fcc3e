"""What the trials of a sweep say of its configurations: how they compare, and a model of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import norm, rankdata
from threadpoolctl import ThreadpoolController

from tune_stoppers.surrogate.encoding import Encoder, Floats, Points
from tune_stoppers.surrogate.gaussian_process import GaussianProcess

MOST_KNOWN = 200  # trials that the model is made of: the best half, and others at random
REFIT = 1.5  # the parameters are fitted again when so many times as many trials are known
BLAS = ThreadpoolController()  # its threads spin while they wait, with small matrices mostly

Indices = np.ndarray[Any, np.dtype[np.intp]]


class TrialLosses(NamedTuple):
    """How a trial does: its loss at each rung that it has reached, and its best."""

    rung_losses: tuple[float, ...]
    best: float
    ended: bool = False  # by itself: its best will not change


def normal_scores(standings: Sequence[TrialLosses], among: Indices | None = None) -> Floats:
    """How each does among the others, as a normal score: lower is better.

    Two trials are compared at the last rung that both have reached, and by their bests where that
    is none or the last of all. One that has ended is beaten by whoever has had a lower loss.

    `among`: indices of those that all are compared with; with all of them, time and memory grow
    with the square of their number.
    """
    rungs = max((len(standing.rung_losses) for standing in standings), default=0)
    losses = np.full((len(standings), rungs + 1), np.inf)
    for row, standing in zip(losses, standings, strict=True):
        row[: len(standing.rung_losses)] = standing.rung_losses
        row[-1] = standing.best
    reached = np.array([len(standing.rung_losses) for standing in standings])
    others = np.arange(len(standings)) if among is None else among
    common = np.minimum(reached[:, None], reached[None, others])
    column = np.where((common == 0) | (common == rungs), rungs, common - 1)
    ended = np.array([standing.ended for standing in standings])
    if ended.any():
        best, mine, theirs = losses[:, -1], ended[:, None], ended[None, others]
        beaten = (mine & theirs) | (mine & (best[None, others] < best[:, None]))
        beaten |= theirs & (best[:, None] < best[None, others])
        column = np.where(beaten, rungs, column)
    own = losses[np.arange(len(standings))[:, None], column]
    other = losses[others[None, :], column]
    worse_than = (other < own).mean(axis=1) + 0.5 * (other == own).mean(axis=1)
    return np.asarray(norm.ppf((rankdata(worse_than) - 0.5) / len(standings)))


class ConfigModel:
    """A Gaussian process over configurations, which keeps what it has fitted and looked up."""

    def __init__(self) -> None:
        self._process: GaussianProcess | None = None
        self._fitted = 0  # trials that it was fitted to
        self._recalled: list[float] = []  # what it was fitted to before a restore
        self._encoded = Encoder()

    @property
    def fit(self) -> list[float]:
        """How many trials it was fitted to, and the parameters; [] before the first fit."""
        return [self._fitted, *map(float, self._process.logs)] if self._process else []

    def recall(self, fit: Sequence[float]) -> None:
        """Begin where the model whose `fit` this is has ended."""
        self._recalled = list(fit)

    def points(self, *parts: Sequence[Mapping[str, Any]]) -> Points:
        """The points of all the configurations, made anew only if there are others than before."""
        return self._encoded([config for part in parts for config in part])

    def process(
        self,
        points: Floats,
        values: Floats,
        groups: Indices,
        trials: int,
        noisiness: Floats | float = 1.0,
    ) -> GaussianProcess:
        """The process, fitted to these values where there are many more trials than before."""
        if self._process is None or not np.array_equal(self._process.groups, groups):
            self._process, self._fitted = GaussianProcess(groups), 0
            if len(self._recalled) == len(self._process.logs) + 1:
                self._fitted = int(self._recalled[0])
                self._process.logs = np.array(self._recalled[1:])
            self._recalled = []
        process = self._process
        if trials >= REFIT * self._fitted:
            process.fit(points, values, noisiness)
            self._fitted = trials
        return process


def some_of(bests: Sequence[float], most: int, rng: np.random.Generator) -> Indices:
    """Indices of the trials that a model is made of: all, or the best half and others at random."""
    if len(bests) <= most:
        return np.arange(len(bests))
    order = np.argsort(bests, kind="stable")
    best, others = order[: most // 2], order[most // 2 :]
    drawn = rng.choice(others, most - len(best), replace=False)
    return np.concatenate([best, drawn])
