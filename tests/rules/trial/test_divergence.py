"""`Divergence`: curve in, stopping evaluation out."""

import math

import pytest

from tune_stoppers.core import Action, Report
from tune_stoppers.rules import Divergence
from tune_stoppers.testing import run_rule
from tune_stoppers.tune.stoppers.named import DivergenceStopper

NAN, INF = math.nan, math.inf

TABLE = [
    ("a falling loss goes on", {}, [4, 3, 2, 1], None),
    ("NaN stops at once", {}, [4, NAN], 2),
    ("NaN at first stops", {}, [NAN], 1),
    ("infinity stops", {}, [4, INF], 2),
    ("minus infinity stops", {}, [4, -INF], 2),
    ("two strikes in a row", {"nonfinite_strikes": 2}, [4, NAN, 3, NAN, INF], 5),
    ("a finite value ends the strikes", {"nonfinite_strikes": 2}, [4, NAN, 3, NAN, 3], None),
    (
        "the stop policy needs one strike",
        {"nonfinite_strikes": 3, "on_nonfinite": "stop"},
        [4, NAN],
        2,
    ),
    ("ignored values are no strikes", {"on_nonfinite": "ignore"}, [4, NAN, INF, 3], None),
    ("beyond best + 3·(first - best), twice", {}, [4, 2, 8.1, 8.1], 4),
    ("exactly at the bound is within it", {}, [4, 2, 8.0, 8.0], None),
    ("once is not twice", {}, [4, 2, 8.1, 3, 8.1], None),
    ("patience 1 stops at once", {"patience": 1}, [4, 2, 8.1], 3),
    ("not before the third finite value", {"patience": 1}, [4, 100, 100], 3),
    (
        "NaN does not count as the third",
        {"patience": 1, "nonfinite_strikes": 9},
        [4, NAN, 100, 100],
        4,
    ),
    ("first is best: + 3·|first|", {"patience": 1}, [4, 16, 16, 16.1], 4),
    ("first is best and negative", {"patience": 1}, [-4, -4, 8.0, 8.1], 4),
    ("first is best and zero: any rise", {"patience": 1}, [0, 0, 0.1], 3),
    ("a smaller factor", {"patience": 1, "factor": 1.0}, [4, 2, 4.0, 4.1], 4),
    ("no factor, no bound", {"factor": None}, [4, 2, 1e9, 1e9], None),
    ("beyond the limit at once", {"limit": 10.0}, [11], 1),
    ("exactly at the limit is within it", {"limit": 10.0}, [10, 10], None),
    ("a NaN in the row keeps its count", {"nonfinite_strikes": 2}, [4, 2, 9, NAN, 9], 5),
    ("no report without the metric breaks the row", {}, [4, 2, 9, None, 9], 5),
    ("huge values overflow nothing", {"patience": 1}, [1.7e308, -1.7e308, 1.7e308], None),
]


@pytest.mark.parametrize(
    ("options", "losses", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_where_it_stops(options, losses, expected):
    """The rule, and the stopper in both modes with its limit turned round."""
    reports = [Report("t", step, loss) for step, loss in enumerate(losses)]
    stops = [d.action is Action.STOP for d in run_rule(Divergence(**options), reports)]
    assert (stops.index(True) + 1 if True in stops else None) == expected
    for mode, sign in (("min", 1), ("max", -1)):
        own = options | ({"limit": sign * options["limit"]} if "limit" in options else {})
        stopper = DivergenceStopper("m", mode, on_missing="skip", **own)
        stops = [
            stopper("t", {"training_iteration": i} | ({} if x is None else {"m": sign * x}))
            for i, x in enumerate(losses, start=1)
        ]
        assert (stops.index(True) + 1 if True in stops else None) == expected


GRADIENTS = [
    ("above its limit", [(1.0, 9.0), (0.9, 11.0)], 2),
    ("exactly at its limit", [(1.0, 10.0)], None),
    ("NaN is above any limit", [(1.0, NAN)], 1),
    ("infinity is above any limit", [(1.0, INF)], 1),
    ("without the loss", [(1.0, 1.0), (None, 11.0)], 2),
    ("a loss without a norm", [(1.0, 1.0), (0.9, None)], None),
    ("neither", [(1.0, 1.0), (None, None)], None),
]


@pytest.mark.parametrize(
    ("reports", "expected"), [row[1:] for row in GRADIENTS], ids=[row[0] for row in GRADIENTS]
)
@pytest.mark.parametrize("mode", ["min", "max"])
def test_gradient_norms_have_a_limit_of_their_own(reports, expected, mode):
    """Higher is worse under either mode; training logs may carry the norm alone."""
    stopper = DivergenceStopper("m", mode, gradient_limit=10.0, gradient_metric="train/norm")
    sign, stops = 1 if mode == "min" else -1, []
    for step, (loss, norm) in enumerate(reports):
        result = {"training_iteration": step}
        result |= {} if loss is None else {"m": sign * loss}
        result |= {} if norm is None else {"train": {"norm": norm}}
        stops.append(stopper("t", result))
    assert (stops.index(True) + 1 if True in stops else None) == expected


def test_a_norm_beyond_its_limit_does_not_wait_for_more_strikes():
    """A loss that is not finite may come again; the norm ends it at once."""
    options = {"nonfinite_strikes": 3, "gradient_limit": 100.0, "gradient_metric": "g"}
    stopper = DivergenceStopper("m", "min", **options)
    rows = [(1.0, 1.0), (NAN, 2.0), (NAN, 1e9)]
    told = [
        stopper("t", {"training_iteration": step, "m": loss, "g": norm})
        for step, (loss, norm) in enumerate(rows, start=1)
    ]
    assert told == [False, False, True]


def test_an_ignored_gradient_norm_does_not_hide_its_loss():
    """Under "ignore" a value that is not finite is left out, not the values beside it."""
    rule = Divergence(limit=10.0, gradient_limit=10.0, on_nonfinite="ignore")
    decisions = run_rule(rule, [Report("t", 1, 99.0, {"grad_norm": INF})])
    assert decisions[0].action is Action.STOP


@pytest.mark.parametrize(
    ("options", "values", "said"),
    [
        ({}, [4.0, 3.0], "3 is within bounds"),
        ({}, [NAN], "1 of 1 evaluations in a row not finite"),
        ({"limit": 3.0}, [4.0], "4 is beyond the limit 3"),
        (
            {},
            [4.0, 2.0, 9.0, 9.0],
            "9 is worse than the bound 8 (first 4, best 2, factor 3), 2 of 2 in a row",
        ),
    ],
)
def test_the_reason_names_the_numbers_compared(options, values, said):
    """Also those of a decision to go on."""
    reports = [Report("t", step, loss) for step, loss in enumerate(values)]
    assert run_rule(Divergence(**options), reports)[-1].reason == said


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"nonfinite_strikes": 0}, ValueError, "nonfinite_strikes must be >= 1, got 0"),
        ({"patience": 0}, ValueError, "patience must be >= 1, got 0"),
        ({"factor": 0}, ValueError, "factor must be > 0, got 0"),
        ({"factor": "3"}, TypeError, "factor must be a number, got '3'"),
        ({"limit": NAN}, ValueError, "limit must be finite, got nan"),
        ({"gradient_limit": -1.0}, ValueError, r"gradient_limit must be > 0, got -1\.0"),
        ({"gradient_metric": ""}, ValueError, "gradient_metric is empty"),
    ],
)
def test_wrong_parameters_are_refused(options, error, said):
    """At construction, by the rule and by the stopper."""
    with pytest.raises(error, match=said):
        Divergence(**options)
    with pytest.raises(error, match=said):
        DivergenceStopper("m", "min", **options)
