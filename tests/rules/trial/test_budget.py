"""`Budget`: totals in, stopping report out."""

import math

import pytest

from tune_stoppers.core import Action, Report
from tune_stoppers.rules import After, Budget, Patience
from tune_stoppers.rules.trial.budget import sweep_is_spent
from tune_stoppers.testing import run_rule

NAN, INF = math.nan, math.inf


def report(step, trial=0.0, sweep=0.0, active=0.0, kwh=0.0):
    totals = {
        "trial_active_seconds": float(trial),
        "sweep_seconds": float(sweep),
        "sweep_active_seconds": float(active),
        "sweep_kwh": float(kwh),
    }
    return Report("t", step, None, totals)


TABLE = [
    ("a trial within its budget", {"trial_seconds": 60}, [(25,), (50,)], None),
    ("a trial past it", {"trial_seconds": 60}, [(25,), (50,), (75,)], 3),
    ("exactly spent is spent", {"trial_seconds": 60}, [(59.999,), (60,)], 2),
    ("at the first report", {"trial_seconds": 60}, [(61,)], 1),
    ("a huge time", {"trial_seconds": 60}, [(1e300,)], 1),
    ("NaN ends nothing", {"trial_seconds": 60}, [(NAN,), (59,)], None),
    ("infinity is past any budget", {"trial_seconds": 60}, [(INF,)], 1),
    ("NaN under stop", {"trial_seconds": 60, "on_nonfinite": "stop"}, [(1,), (NAN,)], 2),
    ("NaN under ignore", {"trial_seconds": 60, "on_nonfinite": "ignore"}, [(NAN,), (60,)], 2),
    ("another's time is not the trial's", {"trial_seconds": 60}, [(1, 99, 99)], None),
    ("a sweep by the clock", {"sweep_seconds": 60}, [(0, 59), (0, 60)], 2),
    ("the clock is not work", {"sweep_seconds": 60}, [(99, 59, 99)], None),
    ("GPU-hours of all trials", {"gpu_hours": 2}, [(0, 0, 7199), (0, 0, 7200)], 2),
    ("two GPUs each", {"gpu_hours": 2, "gpus_per_trial": 2}, [(0, 0, 3599), (0, 0, 3600)], 2),
    ("half a GPU each", {"gpu_hours": 1, "gpus_per_trial": 0.5}, [(0, 0, 7199), (0, 0, 7200)], 2),
    ("money", {"money": 5, "gpu_hour_price": 2.5}, [(0, 0, 7199), (0, 0, 7200)], 2),
    (
        "money of half a GPU each",
        {"money": 5, "gpu_hour_price": 2.5, "gpus_per_trial": 0.5},
        [(0, 0, 14399), (0, 0, 14400)],
        2,
    ),
    ("energy", {"kwh": 2}, [(9, 9, 9, 1.999), (0, 0, 0, 2)], 2),
    ("NaN energy ends nothing", {"kwh": 2}, [(0, 0, 0, NAN)], None),
    ("drain stops too", {"gpu_hours": 1, "on_end": "drain"}, [(0, 0, 3600)], 1),
    (
        "the first budget spent counts",
        {"trial_seconds": 9, "gpu_hours": 1},
        [(1, 0, 1), (9, 0, 9)],
        2,
    ),
    ("the other one", {"trial_seconds": 9, "gpu_hours": 1}, [(1, 0, 1), (2, 0, 3600)], 2),
]


@pytest.mark.parametrize(
    ("options", "totals", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_where_it_stops(options, totals, expected):
    """By the totals of trial, clock and all trials at each report."""
    reports = [report(step, *spent) for step, spent in enumerate(totals, start=1)]
    stops = [d.action is Action.STOP for d in run_rule(Budget(**options), reports)]
    assert (stops.index(True) + 1 if True in stops else None) == expected


@pytest.mark.parametrize(
    ("options", "ends_sweep"),
    [
        ({"sweep_seconds": 5}, True),
        ({"gpu_hours": 1}, True),
        ({"sweep_seconds": 5, "on_end": "drain"}, False),
        ({"gpu_hours": 1, "on_end": "drain"}, False),
        ({"money": 1, "gpu_hour_price": 1}, True),
        ({"money": 1, "gpu_hour_price": 1, "on_end": "drain"}, False),
        ({"trial_seconds": 5}, False),
        ({"trial_seconds": 5, "gpu_hours": 1}, True),
        ({"trial_seconds": 5, "gpu_hours": 2}, False),
    ],
)
def test_what_ends_with_it(options, ends_sweep):
    """A sweep's budget ends the sweep, unless it drains; a trial's budget never does."""
    (decision,) = run_rule(Budget(**options), [report(1, 9, 9, 3600)])
    assert decision.action is Action.STOP
    assert decision.ends_sweep is ends_sweep


def test_the_reason_names_what_was_spent_of_what():
    """Also of a decision to go on."""
    rule = Budget(60, gpu_hours=2)
    kept, stopped = run_rule(rule, [report(1, 30, 0, 3600), report(2, 31, 0, 7200)])
    assert kept.reason == ("the sweep has used 1 of 2 GPU-hours, the trial has used 30 of 60 s")
    assert stopped.reason == "the sweep has used 2 of 2 GPU-hours"
    assert stopped.plain_numbers() == {"gpu_hours": 2.0, "gpu_hours_budget": 2}


def test_it_reads_only_what_it_has_a_budget_for():
    """A plain loop need not know what a GPU costs."""
    assert Budget(5).reads == ("trial_active_seconds",)
    assert Budget(sweep_seconds=5).reads == ("sweep_seconds",)
    assert Budget(gpu_hours=5).reads == ("sweep_active_seconds",)


def test_it_combines_with_other_rules():
    """As any rule: here it does not decide before step 3."""
    decided = run_rule(After(3, Budget(5)), [report(step, 9) for step in (1, 2, 3)])
    assert [d.action.value for d in decided] == ["CONTINUE", "CONTINUE", "STOP"]


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({}, ValueError, "gpu_hours, money or kwh, got none"),
        ({"on_end": "drain"}, ValueError, "got none"),
        ({"trial_seconds": 0}, ValueError, "trial_seconds must be > 0, got 0"),
        ({"sweep_seconds": -1}, ValueError, "sweep_seconds must be > 0, got -1"),
        ({"gpu_hours": NAN}, ValueError, "gpu_hours must be finite, got nan"),
        ({"gpu_hours": "8"}, TypeError, "gpu_hours must be a number, got '8'"),
        ({"gpu_hours": 8, "gpus_per_trial": 0}, ValueError, "gpus_per_trial must be > 0, got 0"),
        (
            {"trial_seconds": 5, "gpus_per_trial": 2},
            ValueError,
            "of use to gpu_hours and money alone",
        ),
        ({"gpu_hours": 8, "on_end": "wait"}, ValueError, "one of kill, drain, got 'wait'"),
        ({"trial_seconds": 5, "on_end": "drain"}, ValueError, "about the end of the sweep"),
    ],
)
def test_wrong_parameters_are_refused(options, error, said):
    """At construction."""
    with pytest.raises(error, match=said):
        Budget(**options)


@pytest.mark.parametrize("on_end", ["kill", "drain"])
def test_a_spent_sweep_is_told_from_a_spent_trial(on_end):
    """Also inside a combination, and not from the numbers of a decision to go on."""
    rule = Budget(trial_seconds=10, gpu_hours=1, on_end=on_end) | Patience(9)
    totals = {"trial_active_seconds": 5.0, "sweep_active_seconds": 100.0, "sweep_seconds": 100.0}
    for more, spent in (
        ({}, False),
        ({"trial_active_seconds": 11.0}, False),
        ({"sweep_active_seconds": 3600.0}, True),
    ):
        _, decision = rule.update(rule.init(), Report("t", 1, 1.0, totals | more))
        assert sweep_is_spent(decision) == spent


def test_the_reason_speaks_of_money_in_its_currency():
    """Also in one with braces, which mean something in a text of numbers."""
    for currency, told in (("EUR", " EUR"), ("", ""), ("{x}", " {x}")):
        rule = Budget(money=5, gpu_hour_price=2.5, currency=currency)
        (decision,) = run_rule(rule, [report(1, active=7200)])
        assert decision.reason == f"the sweep has cost 5 of 5{told}"
        assert sweep_is_spent(decision)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"money": 5}, "money = 5 needs gpu_hour_price"),
        ({"kwh": 5, "gpu_hour_price": 2}, "gpu_hour_price = 2 is of use to money alone"),
        ({"money": 5, "gpu_hour_price": 0}, "gpu_hour_price must be > 0, got 0"),
        ({"money": -1, "gpu_hour_price": 1}, "money must be > 0, got -1"),
        ({"kwh": 0}, "kwh must be > 0, got 0"),
        ({"kwh": 5, "currency": 3}, "currency is a word, got 3"),
    ],
)
def test_money_and_energy_that_make_no_sense_are_refused(options, says):
    """With the rule that was broken and what was given."""
    with pytest.raises(ValueError, match=says):
        Budget(**options)
