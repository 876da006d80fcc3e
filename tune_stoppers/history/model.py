"""What earlier sweeps make one expect of a configuration: a Gaussian process over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tune_stoppers.surrogate.acquisition.freeze_thaw import LEFT, OWN
from tune_stoppers.surrogate.encoding import APART, Encoding, Floats
from tune_stoppers.surrogate.gaussian_process import GaussianProcess, Posterior
from tune_stoppers.surrogate.trial_scores import BLAS

MOST_FITTED = 300  # trials that the parameters are fitted to: the time grows with the cube
MOST_USED = 1500  # trials that a belief is made of
DRAWS = 256  # of what is believed of all configurations together
LEAST_VARIANCE = 1e-6  # of a belief, that copies can be told apart


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
        rows = self._with_sweep(self._encoding.points(configs).rows, np.array(sweep))
        values, noisiness = np.array(scores), _noisiness(np.array(done))
        groups = [*self._encoding.groups, *[len(self.names)] * (self._sweeps + 1)]
        process = GaussianProcess(np.array(groups, dtype=np.intp))
        fitted = rng.permutation(len(values))[:MOST_FITTED]
        with BLAS.limit(limits=1, user_api="blas"):
            process.fit(rows[fitted], values[fitted], noisiness[fitted])
            self._process = process.given(rows, values, noisiness)

    def beliefs(self, configs: Sequence[Mapping[str, Any]]) -> Posterior:
        """Mean and deviation of each configuration's score in a new sweep."""
        with BLAS.limit(limits=1, user_api="blas"):
            mean, covariance = self._process.at(self._new(configs))
        return Posterior(mean, np.sqrt(np.maximum(np.diag(covariance), LEAST_VARIANCE)))

    def choose(self, configs: Sequence[Mapping[str, Any]], n: int) -> list[int]:
        """The places of the `n` configurations of which the best is expected to do best.

        One after another, each is the one that lowers the expected least score of those chosen
        most (expected improvement of a batch, chosen greedily, over draws of what is believed). So
        the first is the most promising, and a copy of it adds nothing. Those outside of the ranges
        that were tried come last: there is hope in them, and no knowledge.
        """
        rows = self._new(configs)
        inside = np.asarray(np.all((rows >= 0) & (rows <= 1), axis=1))
        with BLAS.limit(limits=1, user_api="blas"):
            mean, covariance = self._process.at(rows)
            covariance[np.diag_indices_from(covariance)] += LEAST_VARIANCE
            normal = np.random.default_rng(0).standard_normal((len(mean), DRAWS))
            drawn = mean[:, None] + np.linalg.cholesky(covariance) @ normal
        least = np.full(DRAWS, np.inf)
        order = np.argsort(mean, kind="stable")
        left, beyond = list(order[inside[order]]), list(order[~inside[order]])
        chosen: list[int] = []
        while len(chosen) < n and (left or beyond):
            left = left or beyond
            expected = np.minimum(drawn[left], least).mean(axis=1)
            best = left.pop(int(np.argmin(expected)) if chosen else 0)
            least = np.minimum(least, drawn[best])
            chosen.append(int(best))
        return chosen

    def _new(self, configs: Sequence[Mapping[str, Any]]) -> Floats:
        """The points of configurations of the sweep to come."""
        rows = self._encoding.points(configs).rows
        return self._with_sweep(rows, np.full(len(rows), self._sweeps))

    def _with_sweep(self, rows: Floats, sweep: np.ndarray[Any, Any]) -> Floats:
        return np.hstack([rows, APART * np.eye(self._sweeps + 1)[sweep]])


def _noisiness(done: Any) -> Any:
    """Of a score at a share of the horizon, as `FreezeThawAcquisition` has it."""
    return OWN + (1 - OWN) * (1 - (1 - LEFT) * np.sqrt(done))


def _fair(sizes: Sequence[int], most: int) -> int:
    """The largest number that each sweep may bring so that together they bring at most `most`."""
    allowed = most // len(sizes)
    for _ in sizes:
        small = [size for size in sizes if size <= allowed]
        if len(small) == len(sizes):
            break
        allowed = (most - sum(small)) // (len(sizes) - len(small))
    return max(allowed, 1)
