"""Lines are cut where they leave the axis, and say so."""

import math

import pytest

from tune_stoppers.report.pictures.picture import inside, leavings
from tune_stoppers.report.scales import Scale

NAN = math.nan


def flat(points):
    return [number for point in points for number in point]


@pytest.mark.parametrize(
    ("points", "scale", "sign", "cut"),
    [
        ([(1, 0.5), (2, 1.5)], Scale(0, 1), 1, [(1, 0.5), (1.5, 1), (2, NAN)]),
        ([(1, 3), (2, 1)], Scale(0, 2), 1, [(1, NAN), (1.5, 2), (2, 1)]),
        ([(1, 1.0), (2, 100.0)], Scale(0.1, 10, log=True), 1, [(1, 1), (1.5, 10), (2, NAN)]),
        (
            [(1, 0.5), (2, NAN), (3, 0.4)],
            Scale(0, 1),
            1,
            [(1, 0.5), (1, 1), (2, NAN), (3, 1), (3, 0.4)],
        ),
        ([(1, 0.5), (2, NAN)], Scale(0, 1), -1, [(1, 0.5), (1, 0), (2, NAN)]),
        ([(1, 5.0), (2, 7.0)], Scale(0, 1), 1, [(1, NAN), (2, NAN)]),
        ([], Scale(0, 1), 1, []),
    ],
    ids=["leaves", "enters", "log", "NaN between", "NaN, higher is better", "never inside", "none"],
)
def test_a_line_ends_where_it_crosses_the_edge(points, scale, sign, cut):
    """What is not finite lies beyond the bad edge: the line rises to it at the last value."""
    found = inside(points, scale, sign)
    assert flat(found) == pytest.approx(flat(cut), nan_ok=True)
    crossings = [point for point in cut if point[1] in (scale.low, scale.high)]
    assert flat(leavings(found, scale)) == pytest.approx(flat(crossings))
