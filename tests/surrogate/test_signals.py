"""Signals: what else trials report sharpens a metric that is too coarse to tell them apart."""

import numpy as np
import pytest

from tune_stoppers.surrogate.joint_model import observations
from tune_stoppers.surrogate.loss_scale import Curve, LossScale, curve_of, scale_of
from tune_stoppers.surrogate.signals import sharpened

PROGRESS = np.array([0.25, 0.5, 0.75])
ENDS = np.linspace(1, 2, 10)  # where the trials' losses go
RUNGS = [0.25, 0.5, 0.75]


def curves(step: float, sign: float = 1.0, count: int = 10, seed: int = 0) -> list[Curve]:
    """Falling losses, rounded to steps."""
    dice = np.random.default_rng(seed)
    made = []
    for end in ENDS[:count]:
        losses = sign * end + 1 - PROGRESS + dice.normal(0, 0.01, 3)
        losses = np.round(losses / step) * step
        made.append(curve_of(PROGRESS, losses, np.minimum.accumulate(losses), RUNGS))
    return made


def seen(metric: list[Curve], signals: list[Curve | None], scale: LossScale | None = None):
    scale = scale or scale_of(metric, len(metric))
    assert scale is not None
    before = observations(range(len(metric)), metric, scale)
    return before, sharpened(before, metric, signals, scale)


def test_a_coarse_metric_gets_a_signals_view_of_each_newest_score():
    """In the metric's scores, and in the order of the trials with the own newest last."""
    metric, signals = curves(0.4), curves(1e-6, seed=1)
    before, after = seen(metric, list(signals))
    assert len(after.trial) == len(before.trial) + 10
    assert (np.diff(after.trial) >= 0).all()
    newest = np.append(after.trial[1:] != after.trial[:-1], True)
    added = np.append(newest[1:], False)
    assert (after.progress[added] == 0.75).all()
    assert np.argsort(after.score[added]).tolist() == list(range(10))
    scores = before.score[np.append(before.trial[1:] != before.trial[:-1], True)]
    apart = scores - after.score[added]
    assert np.median(apart) == pytest.approx(0)
    assert after.noise[added] == pytest.approx(max(np.median(np.abs(apart)) / 0.6745, 0.05))


def test_a_metric_that_tells_trials_apart_needs_no_signal():
    """Unless its evaluations are noisy."""
    metric, signals = curves(1e-6), curves(1e-6, seed=1)
    before, after = seen(metric, list(signals))
    assert after is before
    scale = scale_of(metric, 10)
    assert scale is not None
    before, after = seen(metric, list(signals), scale._replace(noise=0.2))
    assert len(after.trial) > len(before.trial)


@pytest.mark.parametrize(
    "signals",
    [
        [None] * 10,
        [*curves(1e-6)[:7], None, None, None],
        curves(1e-6, sign=-3.0),
        [curve._replace(progress=curve.progress - 0.2) for curve in curves(1e-6)],
    ],
    ids=["none", "of seven trials", "that says the opposite", "older than the metric"],
)
def test_a_signal_that_says_nothing_is_left_out(signals: list[Curve | None]):
    """Of too few trials, of another time, or at odds with the metric."""
    before, after = seen(curves(0.4), list(signals))
    assert after is before
