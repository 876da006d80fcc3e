"""A forecast is a proper distribution."""

import math

import numpy as np
import pytest

from tune_stoppers.forecast.distribution import Forecast, mixed

TWO = Forecast(np.array([0.0, 10.0]), np.array([0.25, 0.75]), np.array([0.1, 0.1]))


def test_quantile_and_probability_are_inverse():
    """Also where there are two heaps with next to nothing between them."""
    for p in (0.01, 0.2, 0.25, 0.3, 0.5, 0.99):
        assert TWO.probability_below(TWO.quantile(p)) == pytest.approx(p, abs=1e-6)
    assert TWO.quantile(0.1) < 1 < 9 < TWO.quantile(0.5)


def test_targets_that_are_not_finite_are_certain():
    """Nothing is below minus infinity, everything below infinity."""
    assert TWO.probability_below(-math.inf) == 0
    assert TWO.probability_below(math.inf) == 1


@pytest.mark.parametrize("p", [0, 1, -0.5, math.nan])
def test_a_level_that_has_no_quantile_is_refused(p):
    """With the value that was given."""
    with pytest.raises(ValueError, match=f"above 0 and below 1, got {p}"):
        TWO.quantile(p)


def test_the_density_is_that_of_the_probabilities():
    """Their difference over a small step."""
    for x in (-0.05, 0.0, 9.9):
        slope = (TWO.probability_below(x + 1e-5) - TWO.probability_below(x - 1e-5)) / 2e-5
        assert TWO.density(x) == pytest.approx(slope, rel=1e-4)


def test_a_mixture_is_the_weighted_mean():
    """Of the probabilities at any point."""
    other = Forecast(np.array([5.0]), np.ones(1), np.ones(1))
    both = mixed([TWO, other], np.array([0.3, 0.7]))
    expected = 0.3 * TWO.probability_below(4) + 0.7 * other.probability_below(4)
    assert both.probability_below(4) == pytest.approx(expected)
