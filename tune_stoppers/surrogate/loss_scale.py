"""Losses as scores that can be compared between sweeps: of any metric, at any progress."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tune_stoppers.surrogate.encoding import Floats

NORMAL_MAD = 0.6745  # median |x| of a standard normal variable
SECOND_DIFFERENCE = math.sqrt(6)  # its deviation over that of independent noise
FEWEST_DIFFERENCES = 6  # from which noise is measured


class Curve(NamedTuple):
    """What a trial has reported, oldest first."""

    progress: Floats  # shares of the horizon, above 0
    losses: Floats
    bests: Floats  # the lowest loss up to each; infinity for one that began with NaN


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

    def scores(self, losses: Floats) -> Floats:
        """The scores of some losses."""
        above = (np.minimum(losses, self.cap) - self.best) / self.gap
        return np.where(above > 0, np.log1p(np.maximum(above, 0.0)), above)

    def loss(self, score: float) -> float:
        """The loss that has this score."""
        return self.best + self.gap * (math.expm1(min(score, 50.0)) if score > 0 else score)


def scale_of(curves: Sequence[Curve], rungs: Sequence[float], started: int) -> LossScale | None:
    """The scale of a sweep; None while no trial has reported a finite loss.

    The gap is the geometric mean, over the rungs that at least three trials and a quarter of those
    `started` have reached, and over the first rung in any case, of the distance between the
    median trial and the best one there.
    """
    first = np.array([curve.losses[0] for curve in curves])
    finite = first[np.isfinite(first)]
    if not len(finite):
        return None
    cap = float(np.median(finite))
    best = float(min(curve.bests[-1] for curve in curves))
    gaps = []
    for index, rung in enumerate(rungs):
        at = [_best_at(curve, rung) for curve in curves if curve.progress[-1] >= rung - 1e-9]
        if not at or (index and len(at) < max(3, started / 4)):
            continue
        capped = np.minimum(at, cap)
        gap = float(np.median(capped) - capped.min())
        if gap > 0:
            gaps.append(math.log(gap))
    gap = math.exp(sum(gaps) / len(gaps)) if gaps else max(abs(best) * 1e-3, 1e-12)
    scale = LossScale(best, gap, cap, 0.0)
    return scale._replace(noise=_noise(curves, scale))


def _best_at(curve: Curve, progress: float) -> float:
    """The lowest loss by the first report at or after `progress`."""
    return float(curve.bests[np.searchsorted(curve.progress, progress - 1e-9)])


def _noise(curves: Sequence[Curve], scale: LossScale) -> float:
    """By the second differences of the curves that came below the cap; 0 while there are few."""
    differences = [
        np.abs(np.diff(scale.scores(curve.losses[np.isfinite(curve.losses)]), 2))
        for curve in curves
        if len(curve.losses) > 2 and curve.bests[-1] <= scale.cap
    ]
    found = np.concatenate(differences) if differences else np.zeros(0)
    if len(found) < FEWEST_DIFFERENCES:
        return 0.0
    return float(np.median(found)) / NORMAL_MAD / SECOND_DIFFERENCE
