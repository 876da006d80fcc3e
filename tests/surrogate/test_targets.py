"""Trials that end by themselves at a target."""

import numpy as np
import pytest

from tune_stoppers.surrogate.joint_model import Belief
from tune_stoppers.surrogate.loss_scale import Curve, curve_of, scale_of
from tune_stoppers.surrogate.targets import end_at_target

ENDED = [[5, 4, 3.0], [5, 4.5, 4, 2.8], [6, 5, 2.9], [6, 4, 3.5, 2.7]]  # once below 3.1
GOING = [[6, 5, 4, 3.6, 3.3], [7.0]]


def curve(losses: list[float]) -> Curve:
    values = np.array(losses, dtype=float)
    progress = np.arange(1, len(values) + 1) / 10
    return curve_of(progress, values, np.minimum.accumulate(values), (0.1, 0.2))


def found(ended: list[list[float]], going: list[list[float]] = GOING) -> Belief | None:
    curves = [curve(losses) for losses in [*ended, *going]]
    scale = scale_of(curves, len(curves))
    assert scale is not None
    return end_at_target(curves, [True] * len(ended) + [False] * len(going), scale)


def test_trials_that_end_as_soon_as_they_are_low_enough_have_a_target():
    """Whoever follows ends where they did, with their spread and a little more."""
    target = found(ENDED)
    assert target is not None
    curves = [curve(losses) for losses in [*ENDED, *GOING]]
    scale = scale_of(curves, len(curves))
    assert scale is not None
    assert 2.7 < scale.loss(float(target.mean[0])) < 3.0
    scores = scale.scores(np.array([3.0, 2.8, 2.9, 2.7]))
    assert target.sd[0] == pytest.approx(scores.std(ddof=1) * np.sqrt(5 / 4))


@pytest.mark.parametrize(
    ("ended", "going"),
    [
        (ENDED[:3], GOING),
        ([*ENDED[:3], [5, 4, 2.7, 2.8]], GOING),
        ([*ENDED[:3], [2.7]], GOING),
        (ENDED, [*GOING, [6, 2.6, 2.5]]),
        ([[5, 4, 3 - n / 10] for n in range(4)], GOING),
        ([*ENDED, *([[6, 5, 3.9 - n / 10] for n in range(4)])], GOING),
        ([[4.0, 3.9, 3.5], [3.0, 2.0], [6.0, 5.0, 4.5], [3.3, 3.2, 3.1, 3.0]], GOING),
    ],
    ids=[
        "three",
        "rose",
        "one report",
        "went on",
        "at one time",
        "as many higher",
        "at different losses",
    ],
)
def test_other_ends_are_no_target(ended: list[list[float]], going: list[list[float]]):
    """Patience, a crash, or a common length: others may still come lower."""
    assert found(ended, going) is None


def test_a_trial_that_failed_high_does_not_hide_the_target():
    """It is not among those that count."""
    assert found([*ENDED, [9.0, 8.0]]) is not None


def test_who_is_there_and_has_not_ended_yet_does_not_hide_the_target():
    """With its newest report, or with its first: nobody has gone on from there."""
    assert found(ENDED, [*GOING, [6, 5, 2.9]]) is not None
    assert found([*ENDED, [2.5]]) is not None


def test_ends_that_are_all_the_same_leave_no_hope():
    """Their spread is 0, and nothing divides by it."""
    target = found([[5, 4, 3], [5, 4, 4, 3], [6, 5, 3], [6, 4, 4, 3]])
    assert target is not None
    assert 0 < target.sd[0] < 1e-6
