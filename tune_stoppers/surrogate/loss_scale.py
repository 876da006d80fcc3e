"""Losses as scores that can be compared between sweeps: of any metric, at any progress."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tune_stoppers.surrogate.encoding import Floats

NORMAL_MAD = 0.6745  # median |x| of a standard normal variable
SECOND_DIFFERENCE = math.sqrt(6)  # its deviation over that of independent noise
FEWEST_DIFFERENCES = 6  # from which noise is measured
EARLIER = np.array([0.25, 0.5])  # of its progress: where a curve is looked at beside its end
FAR = 5.0  # standard deviations
FEWEST_REPORTS = 3  # of a trial that was never better, before it has diverged

Indices = npt.NDArray[np.intp]


class Curve(NamedTuple):
    """What a trial has reported, oldest first."""

    progress: Floats  # shares of the horizon, above 0
    losses: Floats
    bests: Floats  # the lowest loss up to each; infinity for one that began with NaN
    at_rungs: Floats  # the lowest loss by each rung, NaN where it was not reached
    newest: (
        Indices  # of the reports that stand for it: the last, at half its progress, at a quarter
    )


def curve_of(progress: Floats, losses: Floats, bests: Floats, rungs: Sequence[float]) -> Curve:
    """The curve; a rung counts as reached by the first report at it or after it."""
    first = np.searchsorted(progress, np.asarray(rungs) - 1e-9)
    at_rungs = np.append(bests, np.nan)[np.minimum(first, len(bests))]
    shares = np.searchsorted(progress, progress[-1] * EARLIER + 1e-9, side="right") - 1
    newest = np.unique(np.append(np.maximum(shares, 0), len(progress) - 1))
    return Curve(progress, losses, bests, at_rungs, newest)


class LossScale(NamedTuple):
    """How losses are measured in a sweep.

    The score of a loss is 0 at the best so far. Above, it is log(1 + (loss - best) / gap), with
    losses over `cap` counted as that; below, (loss - best) / gap: an improvement counts as what it
    is. Scores do not change with the metric's unit or origin.
    """

    best: float  # the lowest loss of the sweep
    gap: float  # between the best trial and the median one, at the rungs reached so far
    cap: float  # the median first loss: what training has not changed yet
    noise: float  # standard deviation of an evaluation, in scores
    spread: float  # standard deviation of first losses

    def scores(self, losses: Floats) -> Floats:
        """The scores of some losses."""
        above = (np.minimum(losses, self.cap) - self.best) / self.gap
        return np.where(above > 0, np.log1p(np.maximum(above, 0.0)), above)

    def diverged(self, curve: Curve, reports: int = 1) -> bool:
        """Whether a trial's newest losses, so many, are far above what training starts from.

        Above `cap` by more than the largest of: how far the best is below it, `gap`, five standard
        deviations of first losses and of an evaluation. And its own best is as far below its
        newest, or it has reported thrice: a slow start is no divergence.
        """
        far, newest = max(self.cap - self.best, self.gap, self._usual), curve.losses[-reports:]
        settled = len(curve.losses) >= FEWEST_REPORTS or newest[-1] > curve.bests[-1] + far
        return bool(newest.min() > self.cap + far and settled)

    @property
    def learnt(self) -> bool:
        """Whether the best has come further below the first losses than these differ.

        Before, `diverged` goes by next to nothing where all start alike.
        """
        return self.cap - self.best > self.spread

    @property
    def _usual(self) -> float:
        return FAR * max(self.spread, self.noise * self.gap)

    def loss(self, score: float) -> float:
        """The loss that has this score."""
        return self.best + self.gap * (math.expm1(min(score, 50.0)) if score > 0 else score)


def scale_of(curves: Sequence[Curve], started: int) -> LossScale | None:
    """The scale of a sweep; None while no trial has reported a finite loss.

    The gap is the geometric mean, over the rungs that at least three trials and a quarter of those
    `started` have reached, and over the first rung in any case, of the distance between the
    median trial and the best one there.
    """
    first = np.array([curve.losses[0] for curve in curves])
    finite = first[np.isfinite(first)]
    if not len(finite):
        return None
    cap = median(finite)
    best = float(min(curve.bests[-1] for curve in curves))
    gaps = []
    for index, column in enumerate(np.array([curve.at_rungs for curve in curves]).T):
        at = np.minimum(column[~np.isnan(column)], cap)
        if len(at) and (not index or len(at) >= max(3, started / 4)):
            gap = median(at) - float(at.min())
            if gap > 0:
                gaps.append(math.log(gap))
    gap = math.exp(sum(gaps) / len(gaps)) if gaps else max(abs(best) * 1e-3, 1e-12)
    scale = LossScale(best, gap, cap, 0.0, robust_sd(finite - cap))
    return scale._replace(noise=_noise(curves, scale))


def _noise(curves: Sequence[Curve], scale: LossScale) -> float:
    """By the second differences of the curves that came below the cap; 0 while there are few."""
    losses = [c.losses for c in curves if len(c.losses) > 2 and c.bests[-1] <= scale.cap]
    if not losses:
        return 0.0
    scores = scale.scores(np.concatenate(losses))
    inside = np.ones(len(scores), dtype=bool)
    ends = np.cumsum([len(each) for each in losses])
    inside[ends - 1] = inside[ends - 2] = False  # the differences from one curve to the next
    found = np.diff(scores, 2)[inside[:-2]]
    if len(found) < FEWEST_DIFFERENCES:
        return 0.0
    return robust_sd(found) / SECOND_DIFFERENCE


def median(numbers: Floats) -> float:
    """The median; numpy's own takes ten times as long for so few."""
    ordered, half = np.sort(numbers), len(numbers) // 2
    return float(ordered[half] if len(numbers) % 2 else (ordered[half - 1] + ordered[half]) / 2)


def robust_sd(differences: Floats) -> float:
    """The standard deviation of normal numbers around 0, by the median of their distances."""
    return median(np.abs(differences)) / NORMAL_MAD
