"""Do the trials of a sweep end by themselves at a target? Then none ends far below it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import compress

import numpy as np

from tune_stoppers.surrogate.joint_model import Belief
from tune_stoppers.surrogate.loss_scale import Curve, LossScale, median

FEWEST = 4  # that have ended so
APART = 0.2  # of the median time at which they ended: how far these times lie apart, at least


def end_at_target(
    curves: Sequence[Curve], ended: Sequence[bool], scale: LossScale
) -> Belief | None:
    """Where a trial to come ends, if trials have shown that they end at a target; else None.

    At least four have ended by themselves before the horizon, each with a report that was better
    than all those (of a long curve: those that are kept) that any trial has gone on from. They are
    most of the trials that have ended at their best, and came there at different times.
    A trial to come ends where those did: a normal belief about its score, with their mean, and
    their deviation times √(1 + 1 / count).

    Args:
        curves: of all trials.
        ended: of each, whether it has ended before the horizon, by itself or by a stopper.
        scale: that of the scores.
    """
    floor = min((curve.bests[-2] for curve in curves if len(curve.bests) > 1), default=-math.inf)
    last = [
        (curve.losses[-1], curve.progress[-1])
        for curve in compress(curves, ended)
        if len(curve.bests) > 1 and curve.losses[-1] <= curve.bests[-1]
    ]
    found = np.array([(loss, time) for loss, time in last if loss < floor])
    if len(found) < FEWEST or 2 * len(found) <= len(last):
        return None
    losses, times = found.T
    if np.ptp(times) < APART * median(times):
        return None
    scores = scale.scores(losses)
    spread = float(scores.std(ddof=1)) * math.sqrt(1 + 1 / len(found))
    return Belief(scores.mean(keepdims=True), np.array([max(spread, 1e-9)]))
