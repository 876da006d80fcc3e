"""Where each trial of a sweep ends: one Gaussian belief over configurations and progress.

The score (`surrogate.loss_scale`) of trial i at progress p (0 to 1) is taken for

    y(i, p) = level + course(p) + g(x_i) + d(x_i, p) + own_i + e_i(p),

a course that all trials share, what the configuration x does to the end and to the way there, and
what is the trial's own, at the end and on the way. What is still to come shrinks with m(p), and is
nothing at the end. All parts are Gaussian; in units of `UNIT` scores the covariance is

    LEVEL + SLOPE l(p) l(q) + COURSE exp(-|log(p / q)| / REACH)
      + (CONFIG + CONFIG_WAY m) k(x, x') + [same trial] (OWN + OWN_WAY m) + noise,

    l(p) = log(1 / p) / 3,   m = min(m(p), m(q)),   m(p) = 0.4 (1 - p) + 0.1 log(1 / p),

with k the Matérn 5/2 kernel. The mean is l(p), and with a prior on the configurations HISTORY
times what that expects. The form follows freeze-thaw optimisation (Swersky, Snoek & Adams 2014);
the numbers were chosen on replays of recorded sweeps (`benchmarks.small_sweeps`), not fitted to
the likelihood: that made decisions worse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.spatial.distance import cdist

from tune_stoppers.surrogate.encoding import Floats, Points
from tune_stoppers.surrogate.loss_scale import Curve, Indices, LossScale

UNIT = 0.5
LEVEL, SLOPE, COURSE, REACH = 10.0, 4.0, 6.0, 6.0
CONFIG, CONFIG_KNOWN, CONFIG_WAY = 4.0, 2.0, 3.0  # KNOWN: beside a prior on configurations
OWN, OWN_WAY = 0.1, 1.0
NOISE = 0.005  # what is left where evaluations show none
HISTORY = 1.2
DEGREES = 10  # how many observations the prior scale of all this counts as
LATE = 0.5  # progress from which a trial says how well its end was foreseen
SURPRISES = 4  # how many such trials count as foreseen as well as believed

RANK_DEVIATION = 12**-0.5  # of numbers spread evenly over [0, 1], as `points_of` spreads them
RATE_WEIGHT, WEIGHT = 0.8, 0.12  # of a learning rate, of others: per standard deviation
FIRST_FIT, REFIT = 8, 1.5  # trials; and how many times as many until the next fit
HOLD = 0.25  # log likelihood that doubling or halving a weight twice must gain at least


class Observations(NamedTuple):
    """Scores that were seen, one row each; those of a trial together, the newest last."""

    trial: Indices  # row of its configuration
    progress: Floats
    score: Floats
    noise: Floats  # standard deviation of each, in scores


class Belief(NamedTuple):
    """What is believed of some trials' scores."""

    mean: Floats
    sd: Floats


@cache
def is_rate(name: str) -> bool:
    """Whether a hyperparameter of this name is a learning rate."""
    last = name.replace(".", "/").split("/")[-1].lower()
    other = any(part.startswith(("warm", "step")) for part in last.split("_"))
    return last == "lr" or ("learning_rate" in last and not other)


def _remaining(progress: Floats) -> Floats:
    return np.asarray(0.4 * (1 - progress) - 0.1 * np.log(progress))


def _course(progress: Floats) -> Floats:
    return np.asarray(-np.log(progress) / 3)


class JointModel:
    """The belief, and the weights of the hyperparameters, which are fitted now and then.

    `weights`: by name; `fitted`: how many trials they were fitted to.

    `surprise`: how well this sweep's ends are foreseen. Each trial that has come half the way is
    left out but for its earliest score here, and its newest one is compared with what is then
    expected of it: z = (score − mean) / sd, and `surprise` = (4 + Σ z²) / (4 + trials). Near 1
    where the model holds.
    """

    def __init__(self) -> None:
        self.weights: dict[str, float] = {}
        self.fitted = 0
        self.surprise = 1.0

    def condition(
        self,
        points: Points,
        seen: Observations,
        noise: float,
        expected: Floats | None = None,
    ) -> None:
        """Take in all that was seen; `noise`: deviation of an evaluation to come, in scores.

        `expected`: what earlier sweeps expect of each configuration (0: like any other), times how
        far that is trusted.
        """
        self._points, self._seen = points, seen
        self._expected = expected
        self._config = CONFIG if expected is None else CONFIG_KNOWN
        self._noise = noise
        newest = np.append(seen.trial[1:] != seen.trial[:-1], True)
        self._middle = float(np.median(seen.score[newest]))
        self._values = (seen.score - self._middle) / UNIT - self._mean(seen.trial, seen.progress)
        trials = int(newest.sum())
        if trials >= max(FIRST_FIT, REFIT * self.fitted):
            self._fit()
            self.fitted = trials
        self._root = self._factor()
        self._solved = cho_solve((self._root, True), self._values)
        count = len(self._values)
        self._spread = (DEGREES + self._values @ self._solved) / (DEGREES + count)
        foreseen = self._foreseen(np.flatnonzero(newest))
        self.surprise = float(SURPRISES + foreseen @ foreseen) / (SURPRISES + len(foreseen))

    def at(self, trials: Indices, progress: Floats) -> Belief:
        """The belief about these trials at these progresses, a new evaluation's noise included."""
        shared = self._covariance(trials, progress, self._seen.trial, self._seen.progress)
        mean = shared @ self._solved + self._mean(trials, progress)
        explained = solve_triangular(self._root, shared.T, lower=True, check_finite=False)
        variance = self._variance(trials, progress) - np.einsum("ij,ij->j", explained, explained)
        variance = UNIT**2 * np.maximum(variance, 1e-9) * self._spread + self._noise**2
        return Belief(self._middle + UNIT * mean, np.sqrt(variance))

    # -- inside --------------------------------------------------------------------------------

    def _mean(self, trials: Indices, progress: Floats) -> Floats:
        mean = _course(progress)
        return mean if self._expected is None else mean + HISTORY * self._expected[trials]

    def _scaled(self, rows: Indices) -> Floats:
        weights = np.array([self._weight(name) for name in self._points.names])
        factors = weights[self._points.groups] / RANK_DEVIATION if len(weights) else np.zeros(0)
        return np.asarray(self._points.rows[rows] * factors)

    def _weight(self, name: str) -> float:
        return self.weights.get(name, RATE_WEIGHT if is_rate(name) else WEIGHT)

    def _foreseen(self, newest: Indices) -> Floats:
        """The z of `surprise`; leaving out is done in the inverse covariance, not by refitting."""
        seen = self._seen
        oldest = np.append(0, newest[:-1] + 1)
        late = (newest - oldest >= 2) & (seen.progress[newest] >= LATE)
        z = np.empty(int(late.sum()))
        for place, (first, last) in enumerate(zip(oldest[late], newest[late], strict=True)):
            count = last - first
            columns = np.zeros((len(seen.trial), count))
            columns[first + 1 : last + 1] = np.eye(count)
            inverse = cho_solve((self._root, True), columns, check_finite=False)
            left_out = np.linalg.inv(inverse[first + 1 : last + 1])  # their covariance, given all
            missed = left_out[-1] @ self._solved[first + 1 : last + 1]
            z[place] = missed / math.sqrt(left_out[-1, -1] * self._spread)
        return z

    def _covariance(self, i: Indices, p: Floats, j: Indices, q: Floats) -> Floats:
        left, back = _distinct(i)
        right, forth = (left, back) if j is i else _distinct(j)
        kernel = self._kernel(left, right)[back][:, forth]
        way = np.minimum.outer(_remaining(p), _remaining(q))
        covariance = (self._config + CONFIG_WAY * way) * kernel
        covariance += LEVEL + np.outer(SLOPE * _course(p), _course(q))
        near, far = p ** (1 / REACH), q ** (1 / REACH)
        covariance += COURSE * np.minimum(np.outer(near, 1 / far), np.outer(1 / near, far))
        covariance += np.equal.outer(i, j) * (OWN + OWN_WAY * way)
        if self._expected is not None:
            covariance += np.outer(self._expected[i], self._expected[j])
        return np.asarray(covariance)

    def _kernel(self, left: Indices, right: Indices) -> Floats:
        """Matérn 5/2, of configurations."""
        if not self._points.rows.shape[1]:
            return np.ones((len(left), len(right)))
        distance = math.sqrt(5) * cdist(self._scaled(left), self._scaled(right))
        return np.asarray((1 + distance + distance**2 / 3) * np.exp(-distance))

    def _variance(self, trials: Indices, progress: Floats) -> Floats:
        way = _remaining(progress)
        variance = LEVEL + SLOPE * _course(progress) ** 2 + COURSE + self._config + OWN
        variance = variance + (CONFIG_WAY + OWN_WAY) * way
        if self._expected is not None:
            variance = variance + self._expected[trials] ** 2
        return np.asarray(variance)

    def _factor(self) -> Floats:
        seen = self._seen
        covariance = self._covariance(seen.trial, seen.progress, seen.trial, seen.progress)
        covariance[np.diag_indices_from(covariance)] += NOISE + (seen.noise / UNIT) ** 2
        return np.asarray(cholesky(covariance, lower=True, overwrite_a=True, check_finite=False))

    def _likelihood(self) -> float:
        """The log likelihood, the scale of the whole averaged over; but for a constant."""
        root = self._factor()
        white = solve_triangular(root, self._values, lower=True, check_finite=False)
        spread = math.log(DEGREES + white @ white)
        return float(-0.5 * (len(white) + DEGREES) * spread - np.log(np.diag(root)).sum())

    def _fit(self) -> None:
        """Double or halve each weight where that is likelier by enough."""
        likelihood = self._likelihood()
        for name in self._points.names:
            start = RATE_WEIGHT if is_rate(name) else WEIGHT
            before = self._weight(name)
            for factor in (2.0, 0.5):
                self.weights[name] = before * factor
                tried = self._likelihood()
                held = _held(before * factor, start) - _held(before, start)
                if tried - held > likelihood:
                    likelihood = tried
                    break
                self.weights[name] = before

    def dump(self) -> dict[str, Any]:
        """The weights, as JSON data."""
        return {"fitted": self.fitted, "weights": dict(self.weights)}

    def recall(self, fit: Any) -> None:
        """Begin where the model that gave this `dump` was."""
        if isinstance(fit, dict) and fit.keys() == {"fitted", "weights"}:
            self.fitted, self.weights = int(fit["fitted"]), dict(fit["weights"])


def _distinct(rows: Indices) -> tuple[Indices, Indices]:
    """The rows, each once, and which of those each is."""
    distinct, place = np.unique(rows, return_inverse=True)
    return distinct, place


def _held(weight: float, start: float) -> float:
    return HOLD * math.log2(weight / start) ** 2


def observations(rows: Sequence[int], curves: Sequence[Curve], scale: LossScale) -> Observations:
    """The reports that stand for each curve: more of them say little more, and cost."""
    counts = [len(curve.newest) for curve in curves]
    progress = np.concatenate([curve.progress[curve.newest] for curve in curves])
    bests = np.concatenate([curve.bests[curve.newest] for curve in curves])
    trial = np.repeat(np.asarray(rows, dtype=np.intp), counts)
    return Observations(trial, progress, scale.scores(bests), np.full(len(trial), scale.noise))
