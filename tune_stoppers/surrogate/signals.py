"""What else trials report, where their metric is too coarse to tell them apart: a training loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tune_stoppers.surrogate.encoding import Floats
from tune_stoppers.surrogate.joint_model import Observations
from tune_stoppers.surrogate.loss_scale import Curve, LossScale, median, robust_sd, scale_of

COARSE = 0.02  # of the gap: steps of the metric from which it is coarse
NOISY = 0.1  # standard deviation of an evaluation, in scores, from which it is
FEWEST_VALUES = 20  # of the metric, before its steps are looked at
FEWEST = 8  # trials with a signal
AGREES = 0.3  # correlation between signal and metric, from which it is used
NEAREST = 0.05  # in scores, the least that their deviation is taken for


def sharpened(
    seen: Observations,
    curves: Sequence[Curve],
    signals: Sequence[Curve | None],
    scale: LossScale,
) -> Observations:
    """What was seen of some trials, and where that helps what their signals say of their newest.

    A signal is any curve of which lower is better. Its scores are those of a `LossScale` of its
    own, shifted by the median difference from the metric's; the deviation of that difference
    between trials (by the median absolute one) is how little a signal's score is believed.

    Nothing is added where the metric tells trials apart by itself (its values are in steps of less
    than 2 % of the gap, and an evaluation deviates by less than 0.1), with fewer than 8 trials
    that report a signal, or where the correlation between the two is below 0.3.

    Args:
        seen: the trials' scores, in the order of `curves`.
        curves, signals: of each trial, the metric and what else it reports.
        scale: that of the metric.
    """
    newest = np.flatnonzero(np.append(seen.trial[1:] != seen.trial[:-1], True))
    both = [
        (row, signal)
        for row, curve, signal in zip(newest, curves, signals, strict=True)
        if signal is not None and signal.progress[-1] >= curve.progress[-1]
    ]
    if len(both) < FEWEST or not (scale.noise > NOISY or _step(curves, scale) > COARSE):
        return seen
    rows = np.array([row for row, _ in both])
    own = scale_of([signal for _, signal in both], len(both))
    if own is None:
        return seen
    scores = own.scores(np.array([signal.bests[-1] for _, signal in both]))
    if not _correlation(seen.score[rows], scores) >= AGREES:
        return seen
    apart = seen.score[rows] - scores
    shift = median(apart)
    noise = max(robust_sd(apart - shift), NEAREST)
    return Observations(
        trial=np.insert(seen.trial, rows, seen.trial[rows]),
        progress=np.insert(seen.progress, rows, seen.progress[rows]),
        score=np.insert(seen.score, rows, scores + shift),
        noise=np.insert(seen.noise, rows, noise),
    )


def _correlation(one: Floats, other: Floats) -> float:
    """NaN where one of them is the same for all."""
    one, other = one - one.mean(), other - other.mean()
    with np.errstate(invalid="ignore"):
        return float((one @ other) / np.sqrt((one @ one) * (other @ other)))


def _step(curves: Sequence[Curve], scale: LossScale) -> float:
    """The smallest difference between two values of the metric, in gaps; 0 while there are few."""
    losses = np.concatenate([curve.losses for curve in curves])
    values = np.unique(losses[np.isfinite(losses)])
    if len(losses) < FEWEST_VALUES or len(values) < 2:
        return 0.0
    steps = np.diff(values)
    return float(steps[steps > 1e-9 * (values[-1] - values[0])].min()) / scale.gap
