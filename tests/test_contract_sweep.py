"""The contract of every rule that looks across trials, on sweeps from Hypothesis."""

import copy
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stand_ins.strategies import finite_losses, losses
from tune_stoppers import RuleScheduler, RuleStopper, rules, testing
from tune_stoppers.core import Action, Report, Rule, SweepRule
from tune_stoppers.core.per_trial import PerTrial
from tune_stoppers.core.track import Sessions
from tune_stoppers.journal.spec import from_spec, to_spec

BOUND = rules.BoundASHA(max_t=8, grace_period=1)
FORECAST = rules.Forecast(max_t=8)

RULES = {
    "bound": BOUND,
    "bound with typical drops, audited": rules.BoundASHA(
        max_t=8, grace_period=1, drop="typical", audit=2
    ),
    "promotion": rules.Promotion(max_t=8, grace_period=1),
    "freeze-thaw": rules.FreezeThaw(max_t=8, grace_period=1),
    "expected improvement": rules.ExpectedImprovement(max_t=8),
    "rollback": rules.Rollback(patience=2),
    "forecast": FORECAST,
    "diminishing returns": rules.DiminishingReturns(min_trials=4),
    "patience for each trial": PerTrial(rules.Patience(2)),
    "forecast or patience": FORECAST | rules.Patience(2),
    "patience and the bound": rules.Patience(2) & BOUND,
    "two of three": rules.AtLeast(2, BOUND, FORECAST, rules.Threshold(0.5)),
    "the bound from step 3 on": rules.After(3, BOUND),
    "the opposite of the bound": rules.Not(BOUND),
}


@st.composite
def sweeps(draw) -> list[Report]:
    """Reports of up to five trials in turns, each with steps that never fall."""
    steps = dict.fromkeys("abcde"[: draw(st.integers(1, 5))], 0)
    reports = []
    for _ in range(draw(st.integers(1, 20))):
        trial = draw(st.sampled_from(sorted(steps)))
        steps[trial] += draw(st.sampled_from([0, 1, 1, 1, 2]))
        reports.append(Report(trial, steps[trial] or 1, draw(losses), {}))
        steps[trial] = steps[trial] or 1
    return reports


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
@settings(max_examples=12)
@given(reports=sweeps())
def test_every_rule_across_trials_holds_the_contract(rule: SweepRule, reports: list[Report]):
    """Deterministic, idempotent, through JSON and pickle, with reasons, and able to forget."""
    testing.check_rule(rule, reports)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_a_rule_across_trials_is_built_again_from_its_spec(rule: SweepRule):
    """As `explain --verify` does it."""
    assert from_spec(to_spec(rule)) == rule


@given(values=st.lists(finite_losses, min_size=1, max_size=12))
def test_a_combination_across_trials_decides_as_its_members_do(values: list[float]):
    """`|` stops where either would, `&` where both do, on each trial of two."""
    reports = [Report(trial, n, v, {}) for n, v in enumerate(values, 1) for trial in "ab"]
    patience = rules.Patience(2)
    alone = [PerTrial(patience), BOUND]
    either, both = patience | BOUND, patience & BOUND
    records = [rule.init() for rule in (*alone, either, both)]
    for report in reports:
        one, two, any_of, all_of = (
            rule.update(record, report).action
            for rule, record in zip((*alone, either, both), records, strict=True)
        )
        assert any_of.severity == max(one.severity, two.severity)
        assert all_of.severity == min(one.severity, two.severity)


def test_rules_for_one_trial_still_combine_to_a_rule_for_one_trial():
    """Only a member that looks across trials makes the whole look there."""
    assert isinstance(rules.Patience(2) | rules.Threshold(0.5), Rule)
    assert isinstance(rules.Patience(2) | BOUND, SweepRule)
    assert isinstance(copy.deepcopy(rules.AnyOf(rules.Patience(2), BOUND)), SweepRule)


@dataclass(frozen=True)
class Forgetful(PerTrial):
    """Forgets nothing, though it is told to."""

    def forget(self, record, trial_ids) -> None:
        """Nothing."""


def test_the_kit_finds_a_rule_that_cannot_forget():
    """And says what is wrong."""
    with pytest.raises(AssertionError, match="still remembered"):
        testing.check_rule(Forgetful(rules.Patience(2)), [Report("a", 1, 1.0, {})])


def test_what_is_no_rule_is_refused():
    """In one line."""
    with pytest.raises(TypeError, match=r"needs a rule of tune_stoppers\.core, got 3"):
        testing.check_rule(3, [])
    with pytest.raises(TypeError, match="AnyOf combines rules, got 3"):
        rules.AnyOf(BOUND, 3)
    with pytest.raises(ValueError, match="k <= the number of rules, 2, got 3"):
        rules.AtLeast(3, BOUND, FORECAST)


def test_a_combination_needs_the_scheduler_that_a_member_needs():
    """A stopper cannot carry out a pause that hides behind an `or`."""
    for rule in (rules.Promotion(max_t=9) | rules.Patience(3), rules.Not(rules.Rollback())):
        with pytest.raises(TypeError, match=r"cannot carry out what .* asks for: use"):
            RuleStopper(rule, "loss", "min")
        with pytest.raises(TypeError, match=r"cannot carry out what .* asks for: use"):
            RuleScheduler(rule)


def test_a_member_sees_reports_that_only_it_reads():
    """A report without the objective still shows a gradient norm to the rule that watches it."""
    rule = rules.GradientNorm(1e-3, 2) | rules.Forecast(max_t=20)
    session = Sessions(rule).of("a")
    session.update(Report("a", 1, 3.0, {"grad_norm": 1e-9}))
    said = [session.update(Report("a", n, None, {"grad_norm": 1e-9})) for n in (2, 3, 4)]
    assert any(each.decision.action is Action.STOP for each in said)


def test_the_second_row_of_a_step_is_judged_and_kept():
    """Trainers log the training, then the evaluation of a step; a rewind finds the evaluation."""
    for rule in (rules.Patience(3), BOUND):
        session = Sessions(rule).of("a")
        for step in (1, 2):
            session.update(Report("a", step, None, {}), checkpoint=True)
            judged = session.update(Report("a", step, float(step), {}), checkpoint=True)
            assert judged.event is None  # so that it is journalled
            again = session.update(Report("a", step, float(step), {}), checkpoint=True)
            assert (again.event, again.decision) == ("repeat", judged.decision)


@pytest.mark.parametrize("kind", [rules.Promotion, rules.FreezeThaw])
def test_a_trial_that_was_never_finite_goes_back_without_harm(kind):
    """As in a dry run, whose stops are not taken, after a crash."""
    rule = kind(max_t=20, grace_period=1)
    record = rule.init()
    for step in range(1, 11):
        rule.update(record, Report("b", step, float("inf"), {}), checkpoint="c")
    assert rule.update(record, Report("b", 8, 0.2, {}), checkpoint="c").action is not Action.STOP
