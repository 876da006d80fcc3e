"""`Threshold`: curve in, stopping evaluation out."""

import math

import pytest

from tune_stoppers.core import Action, Report
from tune_stoppers.rules import Threshold
from tune_stoppers.testing import run_rule
from tune_stoppers.tune.stoppers.named import ThresholdStopper

NAN, INF = math.nan, math.inf

TABLE = [
    ("the first value past it stops", {}, [0.9, 0.4], 2),
    ("at once", {}, [0.4], 1),
    ("reaching it exactly does not count", {}, [0.5, 0.5], None),
    ("never past it", {}, [0.9, 0.8, 0.6], None),
    ("twice in a row", {"patience": 2}, [0.4, 0.6, 0.4, 0.3], 4),
    ("a value at the threshold breaks the row", {"patience": 2}, [0.4, 0.5, 0.4], None),
    ("NaN breaks the row", {"patience": 2}, [0.4, NAN, 0.4, 0.4], 4),
    ("minus infinity is not past it", {}, [-INF, 0.6], None),
    ("infinity is not past it", {}, [INF, 0.6], None),
    (
        "ignored NaN does not break the row",
        {"patience": 2, "on_nonfinite": "ignore"},
        [0.4, NAN, 0.4],
        3,
    ),
    ("NaN stops under stop", {"on_nonfinite": "stop"}, [0.9, NAN], 2),
    ("no report without the metric breaks the row", {"patience": 2}, [0.4, None, 0.4], 3),
    ("a mean of two", {"smoothing": {"mean": 2}}, [0.9, 0.3, 0.5], 3),
    ("a decaying mean", {"smoothing": {"ema": 0.5}}, [0.9, 0.3, 0.3], 3),
    ("a median", {"smoothing": {"median": 3}}, [0.9, 0.1, 0.9, 0.1, 0.1], 4),
    ("smoothing leaves NaN out", {"smoothing": {"mean": 2}}, [0.8, NAN, 0.1], 3),
    ("a negative threshold", {"threshold": -1.0}, [0.0, -1.0, -1.1], 3),
    ("a threshold of zero", {"threshold": 0.0}, [1.0, 0.0, -1e-9], 3),
    ("a whole number", {"threshold": 1}, [1, 0], 2),
    ("for the sweep", {"scope": "sweep"}, [0.6, 0.4], 2),
]


@pytest.mark.parametrize(
    ("options", "losses", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_where_it_stops(options, losses, expected):
    """The rule, and the stopper in both modes with its threshold turned round."""
    options = {"threshold": 0.5} | options
    reports = [Report("t", step, loss) for step, loss in enumerate(losses)]
    stops = [d.action is Action.STOP for d in run_rule(Threshold(**options), reports)]
    assert (stops.index(True) + 1 if True in stops else None) == expected
    for mode, sign in (("min", 1), ("max", -1)):
        own = options | {"threshold": sign * options["threshold"]}
        stopper = ThresholdStopper("m", mode, on_missing="skip", **own)
        stops = [
            stopper("t", {"training_iteration": i} | ({} if x is None else {"m": sign * x}))
            for i, x in enumerate(losses, start=1)
        ]
        assert (stops.index(True) + 1 if True in stops else None) == expected
        assert stopper.stop_all() == (expected is not None and own.get("scope") == "sweep")


@pytest.mark.parametrize(
    ("mode", "values", "said"),
    [
        ("min", [0.6], "0.6 is not past the threshold 0.5"),
        ("min", [0.4], "0.4 is past the threshold 0.5, 1 of 1 in a row"),
        ("max", [0.6], "0.6 is past the threshold 0.5, 1 of 1 in a row"),
        ("max", [0.4], "0.4 is not past the threshold 0.5"),
    ],
)
def test_the_reason_speaks_in_the_metrics_own_units(mode, values, said):
    """Under max the threshold is not shown negated."""
    stopper = ThresholdStopper("m", mode, threshold=0.5)
    for step, value in enumerate(values):
        decision = stopper.judge("t", {"training_iteration": step, "m": value})
    assert stopper.describe(decision) == f"ThresholdStopper: {said}"


def test_a_repeated_step_does_not_count():
    """Twice in a row means two evaluations."""
    reports = [Report("t", 1, 0.4), Report("t", 1, 0.4)]
    assert run_rule(Threshold(0.5, 2), reports)[-1].action is Action.CONTINUE


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"threshold": None}, TypeError, "threshold must be a number, got None"),
        ({"threshold": "0.1"}, TypeError, "threshold must be a number, got '0.1'"),
        ({"threshold": NAN}, ValueError, "threshold must be finite, got nan"),
        ({"patience": 0}, ValueError, "patience must be >= 1, got 0"),
        ({"patience": 1.0}, TypeError, r"patience must be an integer, got 1\.0"),
        ({"scope": "all"}, ValueError, "scope must be one of trial, sweep, got 'all'"),
        ({"smoothing": {"max": 2}}, ValueError, "smoothing is one of"),
    ],
)
def test_wrong_parameters_are_refused(options, error, said):
    """At construction, by the rule and by the stopper."""
    options = {"threshold": 0.5} | options
    with pytest.raises(error, match=said):
        Threshold(**options)
    with pytest.raises(error, match=said):
        ThresholdStopper("m", "min", **options)


def test_a_wrong_threshold_is_shown_as_it_was_given():
    """Under max too: the value got, not its opposite."""
    with pytest.raises(ValueError, match="threshold must be finite, got inf"):
        ThresholdStopper("m", "max", threshold=INF)
