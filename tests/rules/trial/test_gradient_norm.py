"""`GradientNorm`: norms in, stopping report out."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stand_ins.strategies import curves
from tune_stoppers import RuleStopper
from tune_stoppers.core import Action, Report
from tune_stoppers.rules.trial.gradient_norm import GradientNorm
from tune_stoppers.testing import check_rule, run_rule

NAN, INF = math.nan, math.inf
PLAIN = {"threshold": 0.1, "patience": 2}
OWN = PLAIN | {"relative": True}


def reports_of(norms, steps=None):
    """Reports with these norms, and a loss that says nothing of them; None: without a norm."""
    steps = steps or range(1, len(norms) + 1)
    return [
        Report("t", step, 1.0, {} if norm is None else {"grad_norm": norm})
        for step, norm in zip(steps, norms, strict=True)
    ]


def stops_at(rule, norms, steps=None):
    """The number, from 1, of the first report at which the rule stops; None: never."""
    decisions = run_rule(rule, reports_of(norms, steps))
    stops = [decision.action is Action.STOP for decision in decisions]
    return stops.index(True) + 1 if True in stops else None


TABLE = [
    ("the documented example", PLAIN, [0.05, 2, 0.05, 0.3, 0.09, 0.08], 6),
    ("large norms go on", PLAIN, [3, 2, 1, 0.5, 0.2], None),
    ("the patience-th small one stops", PLAIN, [1, 0.09, 0.08], 3),
    ("the first observation is never small", PLAIN | {"patience": 1}, [0.0], None),
    ("the second may be", PLAIN | {"patience": 1}, [0.0, 0.0], 2),
    ("a large one between small ones ends the row", PLAIN, [1, 0.05, 1, 0.05, 1], None),
    ("a norm of exactly the threshold is not small", PLAIN, [1, 0.1, 0.1, 0.1], None),
    ("NaN is never small", PLAIN | {"patience": 1}, [1, NAN, INF, -INF], None),
    ("NaN ends the row", PLAIN, [1, 0.05, NAN, 0.05, 0.05], 5),
    ("a first NaN is no observation", PLAIN | {"patience": 1}, [NAN, 0.05, 0.05], 3),
    ("an overflow reported as -1 is never small", PLAIN | {"patience": 1}, [1, -1, -1], None),
    ("and ends the row", PLAIN, [1, 0.05, -1, 0.05, 0.05], 5),
    ("stop policy: at once", PLAIN | {"on_nonfinite": "stop"}, [1, INF], 2),
    ("ignore policy: neutral", PLAIN | {"on_nonfinite": "ignore"}, [1, 0.05, NAN, 0.05], 4),
    ("reports without a norm do not count", PLAIN, [1, None, 0.05, None, 0.05], 5),
    ("small in warm-up does not count", PLAIN | {"warmup": 4}, [0.01, 0.01, 0.01], None),
    ("nor the first one after it", PLAIN | {"warmup": 4}, [0.01] * 6, 6),
    ("relative: a tenth of its early 20", OWN, [1, 10, 20, 30, 1.9, 1.9], 6),
    ("relative: a tie is not small", OWN, [1, 10, 20, 30, 2.0, 2.0], None),
    ("relative: the early ones do not count", OWN, [1, 20, 20, 1, 1, 5, 1], None),
    ("relative: the first is not of the early", OWN, [1e9, 1, 1, 1, 0.5, 0.5, 0.05, 0.05], 8),
    ("relative: NaN is not of the early", OWN, [1, NAN, 20, 20, -1, 20, 1.9, 1.9], 8),
    ("relative: nor is warm-up", OWN | {"warmup": 3}, [900, 900, 900, 1, 1, 1, 0.5, 0.5], None),
    ("relative: an early norm of 0 never stops", OWN, [0] * 9, None),
    ("relative: absolute size does not matter", OWN, [1e-6] * 9, None),
]


@pytest.mark.parametrize(
    ("options", "norms", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_where_it_stops(options, norms, expected):
    """The rule, and a stopper of it in both modes, which mean nothing to a norm."""
    assert stops_at(GradientNorm(**options), norms) == expected
    for mode in ("min", "max"):
        rule = GradientNorm(gradient_metric="train/norm", **options)
        stopper = RuleStopper(rule, "m", mode, on_missing="skip")
        stops = [
            stopper("t", {"training_iteration": i} | ({} if x is None else {"train": {"norm": x}}))
            for i, x in enumerate(norms, start=1)
        ]
        assert (stops.index(True) + 1 if True in stops else None) == expected


def test_it_needs_no_objective():
    """Training logs carry the norm alone, and a stopper of it no metric."""
    stopper = RuleStopper(GradientNorm(0.1, 1))
    answers = [stopper("t", {"training_iteration": i, "grad_norm": 0.01}) for i in (1, 2)]
    assert answers == [False, True]


def test_a_loss_that_is_not_finite_is_not_its_business():
    """Nor does it hide the norm beside it, under any policy."""
    for policy in ("worst", "stop", "ignore"):
        rule = GradientNorm(0.1, 1, on_nonfinite=policy)
        reports = [report._replace(loss=NAN) for report in reports_of([1, 0.5, 0.05])]
        actions = [decision.action.value for decision in run_rule(rule, reports)]
        assert actions == ["CONTINUE", "CONTINUE", "STOP"]


def test_warm_up_is_in_units_of_time():
    """A norm at the very end of warm-up is the first that is seen."""
    rule = GradientNorm(0.1, 1, warmup=0.1)
    assert stops_at(rule, [0.01] * 4, steps=[0.05, 0.09, 0.1, 0.15]) == 4


def test_a_repeated_step_does_not_count():
    """Ray repeats the last report of a function."""
    assert stops_at(GradientNorm(0.1, 2), [1, 0.01, 0.01, 0.01], steps=[1, 2, 2, 3]) == 4


@pytest.mark.parametrize(
    ("options", "norms", "said"),
    [
        ({}, [2.0], "gradient norm 2 is number 1 of the 1 that do not count"),
        (OWN, [2.0, 2.0], "gradient norm 2 is number 2 of the 4 that do not count"),
        ({"warmup": 5}, [2.0], "gradient norm 2 is of the warm-up before step 5"),
        ({}, [2.0, NAN], "gradient norm nan is no finite size"),
        ({}, [-1.0], "gradient norm -1 is no finite size"),
        ({}, [2.0, 2.0], "gradient norm 2 is not below 0.001"),
        (PLAIN, [2.0, 0.05, 0.025], "gradient norm 0.025 is below 0.1, 2 of 2 in a row"),
        (
            OWN,
            [9.0, 1.0, 2.0, 3.0, 0.125],
            "gradient norm 0.125 is below 0.2 (0.1 of its early norm 2), 1 of 2 in a row",
        ),
    ],
)
def test_the_reason_names_the_numbers_compared(options, norms, said):
    """Also those of a decision to go on; a norm has the same sign under either mode."""
    decision = run_rule(GradientNorm(**options), reports_of(norms))[-1]
    assert said in decision.say(1)
    assert decision.say(-1) == decision.say(1)


RULES = {
    "absolute": GradientNorm(0.75, 2),
    "relative, after warm-up": GradientNorm(0.75, 2, relative=True, warmup=2),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_it_holds_the_contract(rule):
    """On curves with gaps, ties, NaN, repeats and absent metrics, under each policy."""

    @given(curves(), st.sampled_from(["worst", "stop", "ignore"]))
    def holds(reports, policy):
        check_rule(rule.with_policy(policy), reports)

    holds()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"threshold": 0}, ValueError, "threshold must be > 0, got 0"),
        ({"threshold": INF}, ValueError, "threshold must be finite, got inf"),
        ({"patience": 0}, ValueError, "patience must be >= 1, got 0"),
        ({"patience": 1.5}, TypeError, r"patience must be an integer, got 1\.5"),
        ({"gradient_metric": ""}, ValueError, "gradient_metric is empty"),
        ({"relative": 0.5}, TypeError, r"relative must be True or False, got 0\.5"),
        ({"warmup": -1}, ValueError, "warmup must be >= 0, got -1"),
        ({"warmup": None}, TypeError, "warmup must be a number, got None"),
    ],
)
def test_wrong_parameters_are_refused(options, error, said):
    """At construction."""
    with pytest.raises(error, match=said):
        GradientNorm(**options)
