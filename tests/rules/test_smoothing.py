"""Smoothing of a watched value."""

import math

import pytest

from tune_stoppers.rules.smoothing import check_smoothing, smooth


@pytest.mark.parametrize(
    ("smoothing", "values", "expected"),
    [
        pytest.param(None, [3, 1, 2], [3, 1, 2], id="none leaves the values alone"),
        pytest.param({"ema": 0.5}, [4, 2, 0], [4, 3, 1.5], id="a decaying mean"),
        pytest.param({"ema": 0}, [4, 2, 0], [4, 2, 0], id="a mean that forgets at once"),
        pytest.param({"ema": 0.9}, [1], [1], id="the first value starts the mean"),
        pytest.param({"mean": 2}, [4, 2, 0, 0], [4, 3, 1, 0], id="a mean of two"),
        pytest.param({"mean": 1}, [4, 2], [4, 2], id="a mean of one"),
        pytest.param({"median": 3}, [9, 1, 2, 8], [9, 5, 2, 2], id="a median of three"),
        pytest.param({"mean": 9}, [1, 3], [1, 2], id="over fewer while there are fewer"),
        pytest.param({"median": 2}, [-1, -3], [-1, -2], id="negative values"),
        pytest.param({"mean": 2}, [1.7e308, 1.7e308], [1.7e308, 1.7e308], id="a huge mean"),
        pytest.param({"median": 2}, [1.7e308, 1.7e308], [1.7e308, 1.7e308], id="a huge median"),
        pytest.param(
            {"ema": 0.5}, [1.7e308, 1.7e308], [1.7e308, 1.7e308], id="a huge decaying mean"
        ),
    ],
)
def test_each_kind_follows_its_formula(smoothing, values, expected):
    """Value by value; the largest floats overflow neither to an error nor to infinity."""
    window, smoothed = (), []
    for value in values:
        window, result = smooth(smoothing, window, value)
        smoothed.append(result)
    assert smoothed == pytest.approx(expected)
    assert all(map(math.isfinite, smoothed))


def test_the_window_keeps_no_more_than_it_needs():
    """State stays small on long runs."""
    window = ()
    for value in range(100):
        window, _ = smooth({"mean": 3}, window, value)
    assert window == (97, 98, 99)


@pytest.mark.parametrize(
    ("smoothing", "error", "said"),
    [
        ({"emma": 0.9}, ValueError, r"smoothing is one of .*, got \{'emma': 0.9\}"),
        ({}, ValueError, "got {}"),
        ({"ema": 0.9, "mean": 3}, ValueError, "smoothing is one of"),
        (0.9, ValueError, "got 0.9"),
        ({"ema": 1.0}, ValueError, r"smoothing ema must be < 1, got 1\.0"),
        ({"ema": -0.1}, ValueError, "smoothing ema must be >= 0"),
        ({"ema": math.nan}, ValueError, "smoothing ema must be finite"),
        ({"mean": 0}, ValueError, "smoothing mean must be >= 1, got 0"),
        ({"mean": 2.5}, TypeError, r"smoothing mean must be an integer, got 2\.5"),
        ({"median": "3"}, TypeError, "smoothing median must be an integer, got '3'"),
    ],
)
def test_a_wrong_smoothing_is_refused(smoothing, error, said):
    """The forms that exist are shown."""
    with pytest.raises(error, match=said):
        check_smoothing(smoothing)
