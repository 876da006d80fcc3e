"""`Patience`: curve in, stopping evaluation out."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_stoppers.core import Action, Report
from tune_stoppers.rules import Patience
from tune_stoppers.testing import run_rule
from tune_stoppers.tune.stoppers.named import PatienceStopper

NAN, INF = math.nan, math.inf


def stops_at(rule, losses, steps=None):
    """The number, from 1, of the first report at which the rule stops; None: never."""
    steps = steps or range(1, len(losses) + 1)
    reports = [Report("t", step, loss) for step, loss in zip(steps, losses, strict=True)]
    stops = [decision.action is Action.STOP for decision in run_rule(rule, reports)]
    return stops.index(True) + 1 if True in stops else None


TABLE = [
    ("a falling loss goes on", {"patience": 2}, [5, 4, 3, 2, 1], None),
    ("the patience-th bad evaluation stops", {"patience": 2}, [3, 2, 2.5, 2.1, 1], 4),
    ("patience 1 stops at the first bad one", {"patience": 1}, [3, 2, 2.5], 3),
    ("an improvement sets the count back", {"patience": 2}, [3, 4, 2, 4, 1, 4], None),
    ("a tie is no improvement", {"patience": 3}, [1, 1, 1, 1], 4),
    ("one evaluation stops nothing", {"patience": 1}, [1], None),
    ("a flat negative loss stops", {"patience": 2}, [-1, -1, -1], 3),
    ("a falling negative loss goes on", {"patience": 1}, [-1, -2, -3], None),
    ("a gain of min_delta is not enough", {"patience": 1, "min_delta": 0.5}, [2, 1.5], 2),
    ("a gain over min_delta is", {"patience": 1, "min_delta": 0.5}, [2, 1.4, 0.8], None),
    ("small gains add up", {"patience": 3, "min_delta": 0.5}, [2, 1.8, 1.6, 1.4, 1.2, 1], None),
    ("small gains that add up late", {"patience": 2, "min_delta": 0.5}, [2, 1.8, 1.6, 1.4], 3),
    (
        "best moves only at an improvement",
        {"patience": 2, "min_delta": 0.5},
        [2, 1.6, 1.4, 1.2, 1.0],
        5,
    ),
    (
        "relative: a tenth of 10 is 1",
        {"patience": 1, "min_delta": 0.1, "min_delta_mode": "rel"},
        [10, 8.9, 8.0, 7.5],
        4,
    ),
    (
        "relative and negative: better is lower",
        {"patience": 1, "min_delta": 0.1, "min_delta_mode": "rel"},
        [-10, -11.1, -11.5],
        3,
    ),
    (
        "relative at zero: any gain counts",
        {"patience": 1, "min_delta": 0.1, "min_delta_mode": "rel"},
        [0, -1e-9, -1.0],
        None,
    ),
    ("NaN is a bad evaluation", {"patience": 2}, [1, NAN, NAN], 3),
    ("NaN first, then any value improves", {"patience": 2}, [NAN, 1e9, 5, 4], None),
    ("NaN alone stops", {"patience": 3}, [NAN, NAN, NAN], 3),
    ("minus infinity is no best", {"patience": 2}, [1, -INF, 0.5, 0.4], None),
    ("infinity first", {"patience": 2}, [INF, INF], 2),
    ("NaN between bad ones counts", {"patience": 3}, [1, 2, NAN, 2], 4),
    ("stop policy: at once", {"patience": 5, "on_nonfinite": "stop"}, [1, 0.5, NAN], 3),
    ("ignore policy: neutral", {"patience": 2, "on_nonfinite": "ignore"}, [1, NAN, 2, INF, 2], 5),
    ("reports without the metric do not count", {"patience": 2}, [1, None, 2, None, 2], 5),
    ("a baseline not met counts", {"patience": 2, "baseline": 1.0}, [5, 4, 3], 2),
    ("a baseline met in time", {"patience": 2, "baseline": 1.0}, [5, 0.9, 2, 0.8], None),
    ("a baseline met exactly is not beaten", {"patience": 2, "baseline": 1.0}, [5, 1.0], 2),
    ("an improved best below no baseline", {"patience": 3, "baseline": 0}, [3, 2, 0, -1, 1], 3),
    ("smoothed by a mean of two", {"patience": 1, "smoothing": {"mean": 2}}, [4, 2, 3, 5], 4),
    ("smoothing leaves NaN out", {"patience": 2, "smoothing": {"mean": 2}}, [4, NAN, 2, 1], None),
    ("patience by time", {"patience": {0: 1, 3: 3}}, [2, 1, 1, 1, 1], 5),
    ("patience by time, before its first", {"patience": {10: 2, 20: 9}}, [1, 1, 1], 3),
    ("patience that shrinks stops at once", {"patience": {0: 5, 4: 2}}, [1, 1, 1, 1], 4),
]


@pytest.mark.parametrize(
    ("options", "losses", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_where_it_stops(options, losses, expected):
    """The rule, and the stopper in both modes with its baseline turned round."""
    assert stops_at(Patience(**options), losses) == expected
    for mode, sign in (("min", 1), ("max", -1)):
        own = dict(options)
        if "baseline" in own:
            own["baseline"] *= sign
        stopper = PatienceStopper("m", mode, on_missing="skip", **own)
        stops = [
            stopper("t", {"training_iteration": i} | ({} if x is None else {"m": sign * x}))
            for i, x in enumerate(losses, start=1)
        ]
        assert (stops.index(True) + 1 if True in stops else None) == expected


def test_steps_with_gaps_count_as_evaluations():
    """Patience is in evaluations, however far apart."""
    assert stops_at(Patience(2), [1, 1, 1], steps=[10, 500, 501]) == 3


def test_a_repeated_step_does_not_count():
    """Ray repeats the last report of a function."""
    assert stops_at(Patience(2), [1, 2, 2, 2], steps=[1, 2, 2, 3]) == 4


def test_the_decision_to_stop_stays_while_nothing_improves():
    """In shadow mode the run goes on, and so do the decisions."""
    decisions = run_rule(Patience(1), [Report("t", i, x) for i, x in enumerate([1, 1, 1, 0])])
    actions = [decision.action.value for decision in decisions]
    assert actions == ["CONTINUE", "STOP", "STOP", "CONTINUE"]


@pytest.mark.parametrize(
    ("options", "losses", "said"),
    [
        ({}, [2.0], "improved to 2"),
        (
            {"patience": 2},
            [2.0, 2.5, 2.25],
            "2 of 2 evaluations without improvement, value 2.25, best 2 at step 0",
        ),
        ({}, [NAN], "1 of 5 evaluations without improvement, value not finite, none finite yet"),
        ({"min_delta": 0.5}, [2.0, 1.9], "min_delta 0.5"),
        ({"min_delta": 0.5, "min_delta_mode": "rel"}, [2.0, 1.9], "min_delta 0.5 of |best|"),
        ({"baseline": 1.0}, [2.0], "baseline 1"),
    ],
)
def test_the_reason_names_the_numbers_compared(options, losses, said):
    """Also those of a decision to go on."""
    reports = [Report("t", step, loss) for step, loss in enumerate(losses)]
    assert said in run_rule(Patience(**options), reports)[-1].reason


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30), st.integers(1, 5))
def test_it_agrees_with_a_count_from_the_definition(losses, patience):
    """At the first evaluation whose last `patience` are no better than the best before them."""
    expected = None
    for i in range(len(losses)):
        window = losses[max(i - patience + 1, 0) : i + 1]
        before = losses[: max(i - patience + 1, 0)]
        if before and min(window) >= min(before):
            expected = i + 1
            break
    assert stops_at(Patience(patience), losses) == expected


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"patience": 0}, ValueError, "patience must be >= 1, got 0"),
        ({"patience": 2.0}, TypeError, r"patience must be an integer, got 2\.0"),
        ({"patience": "5"}, TypeError, "patience must be an integer, got '5'"),
        ({"patience": True}, TypeError, "patience must be an integer, got True"),
        ({"patience": None}, TypeError, "got None"),
        ({"patience": {}}, ValueError, "patience is an empty mapping"),
        ({"patience": {0: 0}}, ValueError, "patience at step 0 must be >= 1, got 0"),
        ({"patience": {"a": 1}}, TypeError, "patience step must be a number, got 'a'"),
        ({"min_delta": -0.1}, ValueError, r"min_delta must be >= 0, got -0\.1"),
        ({"min_delta": NAN}, ValueError, "min_delta must be finite, got nan"),
        ({"min_delta_mode": "relative"}, ValueError, "one of abs, rel, got 'relative'"),
        ({"baseline": INF}, ValueError, "baseline must be finite, got inf"),
        ({"baseline": "low"}, TypeError, "baseline must be a number, got 'low'"),
        ({"smoothing": {"mean": 0}}, ValueError, "smoothing mean must be >= 1"),
    ],
)
def test_wrong_parameters_are_refused(options, error, said):
    """At construction, by the rule and by the stopper."""
    with pytest.raises(error, match=said):
        Patience(**options)
    with pytest.raises(error, match=said):
        PatienceStopper("m", "min", **options)
