"""A Gaussian process over points, small and plain: Rasmussen & Williams (2006), chapters 2 and 5.

Its covariance is Matérn 5/2 with a length scale for each hyperparameter; scale and noise are
fitted along with those, by the marginal likelihood under weak log-normal priors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.spatial.distance import cdist

from tune_stoppers.surrogate.encoding import Floats

PRIOR_LENGTH, PRIOR_NOISE = 1.5, 0.2  # medians of the priors; the spread is a factor e
START_LENGTH, START_NOISE = 0.7, 0.3
BOUNDS_LENGTH, BOUNDS_SCALE, BOUNDS_NOISE = (-3.0, 4.0), (-4.0, 3.0), (-6.0, 2.0)  # logarithms
JITTER = 1e-6
LEAST_VARIANCE = 1e-9
MOST_STEPS = 20  # of the fit; it begins where the last one ended


class Posterior(NamedTuple):
    """What is believed of some points."""

    mean: Floats
    sd: Floats


class Conditioned(NamedTuple):
    """A process that has seen values at some points; noise is left out of what it says."""

    points: Floats
    root: Floats  # the Cholesky factor of the covariance of the values
    weights: Floats
    covariance: Callable[[Floats, Floats], Floats]

    def at(self, asked: Floats) -> tuple[Floats, Floats]:
        """Mean and covariance of what is at `asked`."""
        shared = self.covariance(self.points, asked)
        explained = solve_triangular(self.root, shared, lower=True)
        return shared.T @ self.weights, self.covariance(asked, asked) - explained.T @ explained


class GaussianProcess:
    """Values at points, with noise: fitted, and asked for its posterior.

    Args:
        groups: for each column of the points, the number of its length scale.
    """

    def __init__(self, groups: npt.NDArray[np.intp]) -> None:
        self.groups = groups
        lengths = int(groups.max()) + 1 if len(groups) else 0
        start = np.full(lengths, np.log(START_LENGTH))
        self.logs: Floats = np.concatenate([start, [0.0, np.log(START_NOISE)]])

    def fit(self, points: Floats, values: Floats, noisiness: Floats | float = 1.0) -> None:
        """Set length scales, scale and noise so that the values are most probable.

        `noisiness`: the noise variance of each value, in units of the one that is fitted.
        """
        lengths = len(self.logs) - 2
        bounds = [BOUNDS_LENGTH] * lengths + [BOUNDS_SCALE, BOUNDS_NOISE]
        found = minimize(
            self._loss,
            self.logs,
            args=(points, values, np.broadcast_to(noisiness, values.shape)),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": MOST_STEPS},
        )
        if np.isfinite(found.fun):
            self.logs = np.asarray(found.x, dtype=float)

    @property
    def noise(self) -> float:
        """The fitted noise variance."""
        return float(np.exp(self.logs[-1]))

    @property
    def scale(self) -> float:
        """The fitted variance of what lies under the noise."""
        return float(np.exp(self.logs[-2]))

    def posterior(
        self,
        points: Floats,
        values: Floats,
        asked: Floats,
        awaited: Floats | None = None,
        noisiness: Floats | float = 1.0,
    ) -> Posterior:
        """Mean and standard deviation of what is at `asked`, noise left out.

        `awaited` are points whose values are on their way: they narrow the deviation, not knowing
        the value does not matter for that, and leave the mean. `noisiness`: as for `fit`.
        """
        known = points if awaited is None else np.vstack([points, awaited])
        noise = np.ones(len(known))
        noise[: len(points)] = noisiness
        root = self._root(known, noise)
        shared = self._covariance(self.logs, known, asked)
        # the factor of the first rows is that of the points alone
        n = len(points)
        mean = shared[:n].T @ cho_solve((root[:n, :n], True), values)
        explained = solve_triangular(root, shared, lower=True)
        variance = self.scale - (explained**2).sum(axis=0)
        return Posterior(mean, np.sqrt(np.maximum(variance, LEAST_VARIANCE)))

    def given(self, points: Floats, values: Floats, noisiness: Floats | float = 1.0) -> Conditioned:
        """The process given values, for many questions: what they have in common is done once."""
        root = self._root(points, noisiness)
        weights = cho_solve((root, True), values)

        def covariance(one: Floats, other: Floats, logs: Floats = self.logs) -> Floats:
            return self._covariance(logs, one, other)

        return Conditioned(points, root, weights, covariance)

    def _root(self, points: Floats, noisiness: Floats | float) -> Floats:
        """The Cholesky factor of the covariance of noisy values at the points."""
        covariance = self._covariance(self.logs, points, points)
        covariance[np.diag_indices_from(covariance)] += self.noise * noisiness + JITTER
        return np.asarray(cholesky(covariance, lower=True))

    def _distance(self, logs: Floats, one: Floats, other: Floats) -> Floats:
        scale = np.exp(-logs[:-2])[self.groups]
        return np.asarray(np.sqrt(5) * cdist(one * scale, other * scale))

    def _covariance(self, logs: Floats, one: Floats, other: Floats) -> Floats:
        d = self._distance(logs, one, other)
        return np.asarray(np.exp(logs[-2]) * (1 + d + d * d / 3) * np.exp(-d))

    def _loss(
        self, logs: Floats, points: Floats, values: Floats, noisiness: Floats
    ) -> tuple[float, Floats]:
        """Minus the log posterior of the parameters but for a constant, and its gradient."""
        d = self._distance(logs, points, points)
        decay, scale, noise = np.exp(-d), np.exp(logs[-2]), np.exp(logs[-1])
        signal = scale * (1 + d + d * d / 3) * decay
        covariance = signal + np.diag(noise * noisiness + JITTER)
        try:
            root = cholesky(covariance, lower=True)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(logs)
        weights = cho_solve((root, True), values)
        loss = 0.5 * values @ weights + np.log(np.diag(root)).sum()
        slack = np.outer(weights, weights) - cho_solve((root, True), np.eye(len(values)))
        # d covariance / d log length of a group = bend · its share of the squared distance
        bend = slack * (5 / 3 * scale * (1 + d) * decay)
        rows = (points * points).T @ bend.sum(axis=1)
        moved = 2 * (rows - np.einsum("ic,ij,jc->c", points, bend, points, optimize=True))
        shares = np.bincount(self.groups, moved, minlength=len(logs) - 2)
        gradient = np.empty_like(logs)
        gradient[:-2] = -0.5 * shares * np.exp(-2 * logs[:-2])
        gradient[-2] = -0.5 * (slack * signal).sum()
        gradient[-1] = -0.5 * (np.diag(slack) @ noisiness) * noise
        away = np.array(logs)
        away[:-2] -= np.log(PRIOR_LENGTH)
        away[-1] -= np.log(PRIOR_NOISE)
        return float(loss + 0.5 * away @ away), gradient + away
