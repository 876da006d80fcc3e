"""What earlier sweeps expect, and how far a sweep comes to trust them."""

import numpy as np
import pytest

from tune_stoppers.surrogate.prior import RANDOM, SLOPE, most_expected, told, trust

RNG = np.random.default_rng(0)
EXPECTED = RNG.standard_normal(40)


def test_most_is_expected_of_the_lowest_and_one_in_five_is_the_next_given() -> None:
    """And so it is where nobody waits."""
    expected = np.array([0.5, -1.0, 0.2])
    chosen = [most_expected(expected, picks) for picks in range(2 * RANDOM)]
    assert chosen == [1, 1, 1, 1, None, 1, 1, 1, 1, None]
    assert most_expected(np.array([]), 0) is None
    assert most_expected(np.zeros(3), 0) == 0  # of equal ones the first given


def test_it_is_said_in_words() -> None:
    """In standard deviations of the trials of a sweep."""
    assert told(-0.84) == "earlier sweeps expect it 0.8 sd better than the typical trial"
    assert told(1.26) == "earlier sweeps expect it 1.3 sd worse than the typical trial"
    assert told(0.01) == "earlier sweeps expect it to be typical"


def test_trust_follows_what_comes_true() -> None:
    """A right history is followed, one that means nothing less and less, a negated one not at all.

    What it expects of others is measured from the trials that it was learnt on.
    """
    right = trust(EXPECTED + 0.3 * RNG.standard_normal(40), EXPECTED)
    assert right.slope == pytest.approx(1, abs=0.15)
    random = RNG.standard_normal(40)
    few, many = trust(random[:3], EXPECTED[:3]), trust(random, EXPECTED)
    assert many.slope < 0.35
    assert abs(few.slope - SLOPE) < abs(many.slope - SLOPE)
    assert trust(-EXPECTED, EXPECTED).slope == 0
    assert right.of(EXPECTED).mean() == pytest.approx(0)


def test_noisy_standings_teach_less() -> None:
    """And none teach nothing."""
    noisy = trust(-EXPECTED[:8], EXPECTED[:8], np.full(8, 10.0)).slope
    assert 0 < noisy < SLOPE
    assert trust(np.array([]), np.array([])).slope == SLOPE
