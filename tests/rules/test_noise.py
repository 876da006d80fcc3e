"""The noise of a curve, from its second differences."""

import random

import pytest

from tune_stoppers.rules.noise import deviation, roughness


def test_it_is_the_deviation_whatever_the_trend() -> None:
    """White noise of 0.2 on a slope is 0.2; a straight line has none."""
    dice = random.Random(1)
    values = [5.0 - 0.3 * t + dice.gauss(0, 0.2) for t in range(4_000)]
    assert deviation(values) == pytest.approx(0.2, rel=0.05)
    assert deviation([5.0 - 0.3 * t for t in range(6)]) == pytest.approx(0, abs=1e-12)


def test_two_values_have_no_bend() -> None:
    """And one outlier among many does not count."""
    assert roughness([1.0, 2.0]) == deviation([]) == 0
    assert roughness([1.0] * 9 + [100.0]) == 0
