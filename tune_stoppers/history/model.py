"""What earlier sweeps make one expect of a configuration: a Gaussian process over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tune_stoppers.surrogate.encoding import APART, Encoding, Floats
from tune_stoppers.surrogate.gaussian_process import Posterior, Process
from tune_stoppers.surrogate.trial_scores import BLAS

MOST_FITTED = 300  # trials that the parameters are fitted to: the time grows with the cube
MOST_USED = 1500  # trials that a belief is made of
OWN, LEFT = 0.2, 0.1  # of the noise of an early score, as `FreezeThawAcquisition` has it


class HistoryModel:
    """How trials of several sweeps did, as a function of their configurations.

    The sweep is one more hyperparameter: a category with a value for each, and another for the
    sweep to come. How far results of one sweep hold in another is learnt with its length scale.

    Args:
        sweeps: the trials of each: configurations, all with the same names for the same things,
            their scores, and the share of the horizon that each score was seen at.
    """

    def __init__(
        self, sweeps: Sequence[tuple[Sequence[Mapping[str, Any]], Floats, Floats]]
    ) -> None:
        rng = np.random.default_rng(len(sweeps))
        most = _fair([len(scores) for _, scores, _ in sweeps], MOST_USED)
        configs, scores, done, sweep = [], [], [], []
        for number, (theirs, their_scores, their_done) in enumerate(sweeps):
            for place in rng.permutation(len(their_scores))[:most]:
                configs.append(theirs[place])
                scores.append(their_scores[place])
                done.append(their_done[place])
                sweep.append(number)
        self._encoding = Encoding(configs)
        self._sweeps = len(sweeps)
        self.names = self._encoding.names
        self._rows = self._with_sweep(self._encoding.points(configs).rows, np.array(sweep))
        self._scores = np.array(scores)
        self._noisiness = OWN + (1 - OWN) * (1 - (1 - LEFT) * np.sqrt(done))
        groups = [*self._encoding.groups, *[len(self.names)] * (self._sweeps + 1)]
        self._process = Process(np.array(groups, dtype=np.intp))
        fitted = rng.permutation(len(scores))[:MOST_FITTED]
        with BLAS.limit(limits=1, user_api="blas"):
            self._process.fit(self._rows[fitted], self._scores[fitted], self._noisiness[fitted])

    def beliefs(
        self, configs: Sequence[Mapping[str, Any]], awaited: Sequence[Mapping[str, Any]] = ()
    ) -> Posterior:
        """Mean and deviation of each configuration's score in a new sweep.

        `awaited`: configurations that will be known: they narrow the deviation.
        """
        with BLAS.limit(limits=1, user_api="blas"):
            return self._process.posterior(
                self._rows,
                self._scores,
                self._new(configs),
                self._new(awaited) if len(awaited) else None,
                self._noisiness,
            )

    def _new(self, configs: Sequence[Mapping[str, Any]]) -> Floats:
        """The points of configurations of the sweep to come."""
        rows = self._encoding.points(configs).rows
        return self._with_sweep(rows, np.full(len(rows), self._sweeps))

    def _with_sweep(self, rows: Floats, sweep: np.ndarray[Any, Any]) -> Floats:
        return np.hstack([rows, APART * np.eye(self._sweeps + 1)[sweep]])


def _fair(sizes: Sequence[int], most: int) -> int:
    """The largest number that each sweep may bring so that together they bring at most `most`."""
    allowed = most // len(sizes)
    for _ in sizes:
        small = [size for size in sizes if size <= allowed]
        if len(small) == len(sizes):
            break
        allowed = (most - sum(small)) // (len(sizes) - len(small))
    return max(allowed, 1)
