"""How noisy a curve is, from the bends between its newest values."""

import math
from collections.abc import Sequence

# The second difference x[i-1] - 2·x[i] + x[i+1] of independent noise has 1 + 4 + 1 = 6 times its
# variance, and half of a Gaussian's values are within 0.6745 standard deviations.
MEDIAN_PER_DEVIATION = 0.6745 * math.sqrt(6)


def roughness(values: Sequence[float]) -> float:
    """The median absolute second difference; 0 for fewer than three values.

    A straight trend has no second difference, and single outliers do not move a median.
    """
    triples = zip(values, values[1:], values[2:], strict=False)
    bends = sorted([abs((before - now) - (now - after)) for before, now, after in triples])
    middle, odd = divmod(len(bends), 2)  # by hand, as every report needs it: in half the time
    if not bends:
        return 0.0
    return bends[middle] if odd else (bends[middle - 1] + bends[middle]) / 2


def deviation(values: Sequence[float]) -> float:
    """The standard deviation of the noise on a curve: 0.605 · `roughness`.

    For Gaussian noise the estimate is unbiased for long curves.
    """
    return roughness(values) / MEDIAN_PER_DEVIATION
