"""`Recovery`: curve in, stopping evaluation out."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stand_ins.strategies import curves, maybe_losses
from tune_stoppers import RuleStopper
from tune_stoppers.core import Action, Report
from tune_stoppers.rules import Patience
from tune_stoppers.rules.trial.recovery import Recovery
from tune_stoppers.testing import check_rule, run_rule

NAN, INF = math.nan, math.inf
TWO = {"patience": 2, "recovery_patience": 2}
ONCE = TWO | {"max_recoveries": 1}


def stops_at(rule, losses, steps=None):
    """The number, from 1, of the first report at which the rule stops; None: never."""
    steps = steps or range(1, len(losses) + 1)
    reports = [Report("t", step, loss) for step, loss in zip(steps, losses, strict=True)]
    stops = [decision.action is Action.STOP for decision in run_rule(rule, reports)]
    return stops.index(True) + 1 if True in stops else None


TABLE = [
    ("the documented example", TWO, [3, 4, 4, 2, 3, 3, 3, 2], 8),
    ("a falling loss goes on", TWO, [5, 4, 3, 2, 1], None),
    ("the defaults allow seven bad ones", {}, [1] * 8, None),
    ("and stop at the eighth", {}, [1] * 9, 9),
    ("bad ones of patience alone do not stop", TWO, [1, 2, 2], None),
    ("nor does one less than both", TWO, [1, 2, 2, 2], None),
    ("both together do", TWO, [1, 2, 2, 2, 2], 5),
    ("a recovery sets both counts back", TWO, [5, 6, 6, 6, 4, 6, 6, 6, 3, 6, 6, 6, 2], None),
    ("better than the last is not better than the best", TWO, [1, 5, 4, 3, 2], 5),
    ("a tie is no improvement", TWO, [1, 2, 2, 1, 1], 5),
    ("the smallest gain is", TWO, [1, 2, 2, 2, 1 - 1e-12, 2, 2], None),
    ("the smallest counts", {"patience": 1, "recovery_patience": 1}, [1, 2, 2], 3),
    ("NaN is a bad evaluation", TWO, [1, NAN, 2, INF, NAN], 5),
    ("NaN alone stops", TWO, [NAN] * 4, 4),
    ("NaN first, then any value improves", TWO, [NAN, NAN, NAN, 1e9, 5], None),
    ("minus infinity is no best", TWO, [1, -INF, 0.5, 0.4], None),
    ("stop policy: at once", TWO | {"on_nonfinite": "stop"}, [1, NAN], 2),
    ("ignore policy: neutral", TWO | {"on_nonfinite": "ignore"}, [1, 2, NAN, 2, 2, INF, 2], 7),
    ("reports without the metric do not count", TWO, [1, None, 2, 2, None, 2, 2], 7),
    ("one recovery allowed: the first phase is as ever", ONCE, [1, 2, 2, 2, 2], 5),
    ("one used: stops where the next would begin", ONCE, [3, 4, 4, 2, 3, 3], 6),
    ("improving before the phase uses none", ONCE, [5, 6, 4, 6, 3, 6, 6, 6, 6], 9),
    ("recovering at the very last uses one", ONCE, [3, 4, 4, 4, 2, 3, 3], 7),
    ("none allowed: plain patience", TWO | {"max_recoveries": 0}, [1, 2, 2], 3),
    ("two allowed", TWO | {"max_recoveries": 2}, [5, 6, 6, 4, 6, 6, 3, 6, 6], 9),
]


@pytest.mark.parametrize(
    ("options", "losses", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_where_it_stops(options, losses, expected):
    """The rule, and a stopper of it in both modes."""
    assert stops_at(Recovery(**options), losses) == expected
    for mode, sign in (("min", 1), ("max", -1)):
        stopper = RuleStopper(Recovery(**options), "m", mode, on_missing="skip")
        stops = [
            stopper("t", {"training_iteration": i} | ({} if x is None else {"m": sign * x}))
            for i, x in enumerate(losses, start=1)
        ]
        assert (stops.index(True) + 1 if True in stops else None) == expected


@given(
    st.lists(maybe_losses, max_size=30),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from([None, 0]),
)
def test_it_is_patience_where_phases_are_all_granted_or_none(losses, patience, more, allowed):
    """Of both counts together, or of the first alone."""
    same = Patience(patience + more if allowed is None else patience)
    assert stops_at(Recovery(patience, more, allowed), losses) == stops_at(same, losses)


def test_a_phase_that_failed_is_no_recovery():
    """In shadow mode the run goes on after the stop, and may improve long after."""
    decisions = run_rule(
        Recovery(1, 1, 1), [Report("t", i, x) for i, x in enumerate([3, 4, 4, 2, 3, 1])]
    )
    actions = [decision.action.value for decision in decisions]
    assert actions == ["CONTINUE", "CONTINUE", "STOP", "CONTINUE", "CONTINUE", "CONTINUE"]
    assert decisions[-1].reason == "improved to 1, 1 recoveries so far"


def test_a_repeated_step_does_not_count():
    """Ray repeats the last report of a function."""
    assert stops_at(Recovery(1, 1), [1, 2, 2, 2], steps=[1, 2, 2, 3]) == 4


@pytest.mark.parametrize(
    ("options", "losses", "said"),
    [
        ({}, [2.0], "improved to 2, 0 recoveries so far"),
        (
            TWO,
            [2.0, 2.5],
            "1 of 2 evaluations without improvement, value 2.5, best 2 at step 0",
        ),
        (
            TWO,
            [2.0, 2.5, 2.5],
            "0 of 2 evaluations of recovery without improvement, value 2.5, best 2 at step 0",
        ),
        (TWO, [2.0] * 5, "2 of 2 evaluations of recovery without improvement, value 2, best 2"),
        ({}, [NAN], "1 of 5 evaluations without improvement, value not finite, none finite yet"),
        (
            ONCE,
            [3.0, 4.0, 4.0, 2.0, 4.0, 4.0],
            "2 evaluations without improvement, and no recovery left of 1, value 4, best 2",
        ),
    ],
)
def test_the_reason_names_the_phase_and_the_numbers_compared(options, losses, said):
    """Also those of a decision to go on."""
    reports = [Report("t", step, loss) for step, loss in enumerate(losses)]
    assert said in run_rule(Recovery(**options), reports)[-1].reason


RULES = {"any number of recoveries": Recovery(2, 1), "one recovery": Recovery(1, 2, 1)}


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
        ({"patience": 0}, ValueError, "patience must be >= 1, got 0"),
        ({"patience": True}, TypeError, "patience must be an integer, got True"),
        ({"recovery_patience": 0}, ValueError, "recovery_patience must be >= 1, got 0"),
        ({"recovery_patience": 1.5}, TypeError, "recovery_patience must be an integer"),
        ({"max_recoveries": -1}, ValueError, "max_recoveries must be >= 0, got -1"),
        ({"max_recoveries": INF}, TypeError, "max_recoveries must be an integer, got inf"),
    ],
)
def test_wrong_parameters_are_refused(options, error, said):
    """At construction."""
    with pytest.raises(error, match=said):
        Recovery(**options)
