"""Losses as scores."""

import numpy as np
import pytest

from tune_stoppers.surrogate.loss_scale import Curve, curve_of, scale_of

RUNGS = (0.25, 0.5)


def curve(*losses: float) -> Curve:
    values = np.array(losses)
    progress = np.arange(1, len(values) + 1) / 4
    return curve_of(progress, values, np.minimum.accumulate(values), RUNGS)


CURVES = [curve(4.0, 2.0, 1.0), curve(4.0, 3.0), curve(5.0), curve(8.0, 6.0)]


def test_a_score_is_zero_at_the_best_logarithmic_above_and_linear_below():
    """So that no improvement is out of reach, and bad is not told from worse."""
    scale = scale_of(CURVES, 4)
    assert scale is not None
    best, gap = scale.best, scale.gap
    assert best == 1.0
    scores = scale.scores(np.array([best, best + gap, best - 2 * gap, scale.cap, 1e9]))
    assert scores[:3] == pytest.approx([0.0, np.log(2), -2.0])
    assert scores[3] == scores[4]


@pytest.mark.parametrize(("factor", "shift"), [(100.0, 0.0), (1.0, -50.0), (1e-6, 3.0)])
def test_scores_do_not_depend_on_unit_or_origin(factor: float, shift: float):
    """Percent, negated accuracies, losses that go to 0: all the same."""
    moved = [curve(*(factor * c.losses + shift)) for c in CURVES]
    one, other = scale_of(CURVES, 4), scale_of(moved, 4)
    assert one is not None and other is not None
    losses = np.array([0.5, 1.0, 3.0, 9.0])
    assert other.scores(factor * losses + shift) == pytest.approx(one.scores(losses), rel=1e-6)
    assert other.noise == pytest.approx(one.noise, rel=1e-6)


def test_a_loss_comes_back_from_its_score():
    """For what is said to people."""
    scale = scale_of(CURVES, 4)
    assert scale is not None
    for loss in (0.2, 1.0, 3.5):
        assert scale.loss(float(scale.scores(np.array([loss]))[0])) == pytest.approx(loss)


def test_the_noise_of_evaluations_is_measured():
    """Straight curves have none; noisy ones have about what was put in."""
    dice = np.random.default_rng(0)
    line = np.linspace(2.0, 1.0, 40)
    times = np.arange(1, 41) / 40

    def noisy(sd: float) -> list[Curve]:
        many = [line + 0.5 * k + dice.normal(0, sd, 40) for k in range(5)]
        return [curve_of(times, v, np.minimum.accumulate(v), RUNGS) for v in many]

    straight, rough = scale_of(noisy(0.0), 5), scale_of(noisy(0.05), 5)
    assert straight is not None and rough is not None
    assert straight.noise < 0.01
    slope = rough.gap + (rough.cap - rough.best) / 2  # between the ends of the logarithm
    assert 0.3 < rough.noise * slope / 0.05 < 3


def test_nothing_finite_is_no_scale_and_equal_losses_have_one():
    """A sweep may begin with NaN alone, or with trials that are all alike."""
    assert scale_of([curve(np.inf), curve(np.inf)], 2) is None
    alike = scale_of([curve(2.0, 2.0), curve(2.0)], 2)
    assert alike is not None and alike.gap > 0
    with_nan = scale_of([curve(np.inf), curve(2.0), curve(3.0)], 3)
    assert with_nan is not None
    assert np.isfinite(with_nan.scores(np.array([np.inf]))).all()


def test_a_curve_stands_for_itself_at_its_end_half_and_quarter():
    """And says what it had at each rung that it reached."""
    whole = curve(4.0, 3.0, 5.0, 2.0)
    assert whole.newest.tolist() == [0, 1, 3]
    assert whole.at_rungs.tolist() == [4.0, 3.0]
    assert np.isnan(curve(4.0).at_rungs[1])
    assert curve(4.0).newest.tolist() == [0]


@pytest.mark.parametrize(
    ("losses", "diverged"),
    [
        ((2.0, 9.5), True),  # the cap is 5, the best 1: above 9
        ((9.5, 9.5), False),  # it may only be slow
        ((9.5, 9.6, 9.4), True),
        ((2.0, 8.5), False),
        ((9.5, 4.0), False),  # it has come back
        ((np.inf, np.inf, np.inf), True),
        ((2.0,), False),
    ],
)
def test_a_trial_has_diverged_where_it_is_far_above_what_training_starts_from(
    losses: tuple[float, ...], diverged: bool
):
    """By its newest loss, whatever its best is."""
    known = [curve(5.0, 2.0, 1.0), *(curve(5.0 + d) for d in (-0.2, -0.1, 0.1, 0.2)), curve(5.0)]
    scale = scale_of(known, len(known))
    assert scale is not None
    assert scale.cap == 5.0
    assert scale.diverged(curve(*losses)) == diverged


def test_first_losses_that_differ_are_no_divergence():
    """Before anything is learnt, a bad start is a bad start."""
    known = [curve(first) for first in (0.7, 0.75, 0.8, 0.85, 0.9, 1.0)]
    scale = scale_of(known, len(known))
    assert scale is not None
    assert not any(map(scale.diverged, known))
