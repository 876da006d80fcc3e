"""Do the trials of a sweep end by themselves at a target? Then none ends far below it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tune_stoppers.surrogate.joint_model import Belief
from tune_stoppers.surrogate.loss_scale import Curve, LossScale, median

FEWEST = 4  # that have ended so
FULL = 0.8  # of the horizon: who ends from there on has run to its end


class Target(NamedTuple):
    """Where trials end that end at a target."""

    end: Belief  # of a trial to come, in scores
    progress: float  # the median one at which they ended


def target_of(curves: Sequence[Curve], ended: Sequence[bool], scale: LossScale) -> Target | None:
    """The target, if trials have shown that there is one.

    At least four have ended by themselves before 0.8 of the horizon, not all at one time, each
    with a report that was better than all reports that a trial has gone on from. A trial to come
    ends where those did: a normal belief with their mean, and their deviation √(1 + 1 / count).
    `ended`: of each curve, whether its trial has ended by itself, or by a stopper.
    """
    floor, last = math.inf, []
    for curve, over in zip(curves, ended, strict=True):
        over = over and len(curve.losses) > 1 and curve.losses[-1] <= curve.bests[-1]
        floor = min(floor, curve.bests[-2 if over else -1])
        if over and curve.progress[-1] < FULL:
            last.append((curve.losses[-1], curve.progress[-1]))
    found = np.array([pair for pair in last if pair[0] < floor])
    if len(found) < FEWEST or np.ptp(found[:, 1]) <= 0:
        return None
    scores = scale.scores(found[:, 0])
    spread = float(scores.std(ddof=1)) * math.sqrt(1 + 1 / len(found))
    end = Belief(scores.mean(keepdims=True), np.array([max(spread, 1e-9)]))
    return Target(end, median(found[:, 1]))
