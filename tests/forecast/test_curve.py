"""A curve on the grid: bounded, and the same after a rewind or a trip through JSON."""

import json
import math

import numpy as np

from tune_stoppers.forecast.curve import CELLS, EDGES, Curve, cell_of


def curve_of(losses, max_t=None, rates=None):
    """A curve with a report at 1, 2, …"""
    curve = Curve()
    for t, loss in enumerate(losses, start=1):
        rate = math.nan if rates is None else rates[t - 1]
        curve.add(t, t / (max_t or len(losses)), loss, rate)
    return curve


def test_the_grid_covers_all_of_training():
    """Cells end at their edges, and times beyond the horizon are in the last."""
    assert EDGES[-1] >= 1 > EDGES[-2]
    assert [cell_of(edge) for edge in EDGES] == list(range(CELLS))
    assert cell_of(1e-9) == 0
    assert cell_of(7.0) == CELLS - 1


def test_memory_is_bounded_and_the_best_is_kept():
    """10,000 reports are an entry a cell; a best in between two entries is not lost."""
    losses = [1.0] * 10_000
    losses[3_456] = 0.25
    curve = curve_of(losses)
    assert len(curve.cells) == CELLS
    assert curve.glimpse(CELLS - 1).best == 0.25
    assert curve.glimpse(10).best == 1.0


def test_a_glimpse_is_what_was_known_then():
    """The last, the best, the drop since half the time, what it moved; nothing of later."""
    curve = curve_of([8.0, 4.0, 5.0, 3.0, 1.0, 0.0, 0.0, 0.0])
    seen = curve.glimpse(3)  # t = 4: half the time is t = 2, with 4.0
    assert (seen.last, seen.best, seen.drop, seen.spread) == (3.0, 3.0, 1.0, 5.0)


def test_a_rewind_drops_what_came_after():
    """As if the later reports had never been."""
    curve = curve_of([5.0, 4.0, 3.0, 2.0, 1.0, 0.5, 0.4, 0.3])
    curve.add(3, 3 / 8, 3.5, math.nan)
    again = curve_of([5.0, 4.0, 3.5], max_t=8)
    assert curve.dump() == again.dump()


def test_the_columns_say_what_followed():
    """NaN before the first report and after the last."""
    curve = curve_of([3.0, 1.0, 2.0], max_t=4)
    _, after = curve.columns()
    assert np.isnan(after[0])
    assert after[cell_of(0.25)] == 1.0
    assert after[cell_of(0.5)] == 2.0
    assert np.isnan(after[cell_of(0.75)])


def test_learning_rates_are_shares_of_their_maximum():
    """So that trials with different peaks are compared."""
    curve = curve_of([1.0] * 4, rates=[0.5, 2.0, 1.0, 0.5])
    assert [curve.glimpse(place).rate for place in range(4)] == [1.0, 1.0, 0.5, 0.25]
    late = curve_of([1.0] * 3, rates=[math.nan, 2.0, 1.0])
    assert math.isnan(late.glimpse(0).rate)
    assert late.glimpse(2).rate == 0.5


def test_a_curve_goes_through_json():
    """Also where no learning rate was reported."""
    curve = curve_of([5.0, 4.0, 3.0])
    text = json.dumps(curve.dump(), allow_nan=False)
    assert Curve.load(json.loads(text)).dump() == curve.dump()
