"""Axes: what range is shown, where the labels go."""

import itertools
import math

import pytest

from tune_stoppers.report.data.story import Parameter
from tune_stoppers.report.scales import (
    Scale,
    duration,
    metric_scale,
    objective_scale,
    parameter_scale,
    scale_of,
    short,
    value_ticks,
)


def test_a_wide_range_is_logarithmic_and_a_narrow_one_is_not():
    """Learning rates are; losses between 1 and 3 are not; what is negative never is."""
    assert scale_of([1e-4, 1e-1]).log
    assert not scale_of([1.0, 3.0]).log
    assert not scale_of([-1.0, 1000.0]).log
    assert scale_of([1e-4, 1e-2]).position(1e-3) == pytest.approx(0.5)


def test_one_value_alone_and_none_at_all_have_an_axis():
    """Neither divides by nothing."""
    for values in ([2.0], [0.0], [], [math.nan], [math.inf]):
        scale = scale_of(values)
        assert scale.low < scale.high
        assert scale.ticks()


EXTREMES = [-1.7e308, 0.0, 5e-324, 1e-310, 2.3e-308, 1e-300, 1.0, 1e300, 1.7e308]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("values", list(itertools.combinations(EXTREMES, 2)), ids=str)
def test_the_largest_and_the_smallest_floats_have_places(values, sign):
    """Their quotients and differences are infinite, or nothing; the axis is neither."""
    for scale in (
        scale_of(values),
        scale_of(values, log=True, pad=0.04),
        objective_scale(values, sign),
        objective_scale(values, sign, shown=values),
    ):
        assert 0 < scale.high - scale.low < math.inf
        assert all(0 <= scale.position(value) <= 1 for value in values)
        assert all(math.isfinite(tick) for tick in scale.ticks())


@pytest.mark.parametrize(("mode", "sign"), [("min", 1), ("max", -1)])
def test_a_diverging_trial_does_not_flatten_the_others(mode, sign):
    """The best value stays inside the axis, what is far off lies on the edge, in both modes."""
    values = [sign * value for value in [1.0, 1.1, 1.2, 1.3] * 10 + [1e6]]
    scale = objective_scale(values, sign)
    assert scale.high - scale.low < 1
    assert 0 < scale.position(sign * 1.0) < 1
    assert scale.position(sign * 1e6) == (1 if sign > 0 else 0)
    assert scale.clamp(math.nan, sign) == (scale.high if sign > 0 else scale.low)


def test_what_must_be_seen_is_inside():
    """However many values are better than it."""
    assert objective_scale([1.0] * 100 + [5.0], 1, shown=[5.0]).high > 5


@pytest.mark.parametrize("scale", [Scale(0, 1), Scale(-3, 97), Scale(0.37, 0.38), Scale(1, 27)])
def test_ticks_are_round_and_inside(scale):
    """About as many as asked for."""
    ticks = scale.ticks(5)
    assert 3 <= len(ticks) <= 7
    assert all(scale.low - 1e-9 <= tick <= scale.high + 1e-9 for tick in ticks)


@pytest.mark.parametrize(("low", "high"), [(1e-5, 1e-1), (2.0, 90.0), (3e-4, 5e-4), (1e-9, 1e9)])
def test_ticks_of_logarithms(low, high):
    """Decades, or 1, 2, 5 where there are too few; never more than can be read."""
    ticks = Scale(low, high, log=True).ticks(5)
    assert 1 <= len(ticks) <= 7
    assert all(low * 0.999 <= tick <= high * 1.001 for tick in ticks)


def test_numbers_and_times_are_short():
    """Four digits; a unit that people use."""
    assert [short(x) for x in (0.1 + 0.2, 1e-5, 123456.0, -0.0, math.nan, -math.inf)] == [
        *("0.3", "1e-5", "1.235e5", "0", "–", "−∞"),
    ]
    assert [duration(s) for s in (3.21, 42.4, 210, 7560, 400000)] == [
        *("3.2 s", "42 s", "3.5 min", "2.1 h", "4.6 d"),
    ]


def test_rates_are_told_apart_by_factors():
    """Learning rates and weight decays from a factor of 2.5 on, others from 8 on, unless
    the values tried are spread evenly."""
    for name, values, log in [
        ("optim/learning_rate", (1e-4, 3e-4), True),
        ("weight_decay", (0.01, 0.1), True),
        ("lr", (0.0, 0.1), False),  # zero has no logarithm
        ("batch_size", (8, 32), False),
        ("batch_size", (8, 64), True),
        ("dropout", tuple(n / 50 + 0.01 for n in range(50)), False),  # even draws
        ("rank", (1, 2, 4, 8, 16), True),
    ]:
        assert parameter_scale(Parameter(name, values, True)).log is log, name


def test_a_schedule_that_ends_at_zero_does_not_stretch_the_axis():
    """It shows the rates from a hundredth of the lowest peak on."""
    curve = ((1.0, 1e-3), (2.0, 5e-4), (3.0, 1e-9), (4.0, 0.0))
    scale = metric_scale("train/lr", [curve, ((1.0, 1e-4),)])
    assert scale.log
    assert 5e-5 < scale.low <= 1e-4


def test_the_values_tried_are_labelled_where_they_are_few():
    """Unless their labels would lie on each other; many values have round labels."""
    ticks = value_ticks(scale_of([8, 16, 32], pad=0.04), [8, 16, 32])
    assert [text for _, text in ticks] == ["8", "16", "32"]
    close = value_ticks(scale_of([0.9, 0.99, 0.9901]), [0.9, 0.99, 0.9901])
    assert [text for _, text in close] == ["0.9", "0.99"]
    assert (0.5, "0.5") in value_ticks(Scale(0, 1), [n / 20 for n in range(20)])
