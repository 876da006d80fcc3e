"""Decisions as they are told: who hears them, and the numbers in the metric's own units."""

import gc
import weakref

import pytest

from tests.stand_ins.pausing_stage import StandIn
from tune_stoppers import PatienceStopper, PromotionASHAScheduler, RuleStopper, rules
from tune_stoppers.core import Action, Decision
from tune_stoppers.tune.announcing import Verdict, announce, listen, metrics_of


class Notes(list):
    """Whoever hears, and notes it down."""

    __hash__ = object.__hash__
    hear = list.append


def heard(stopper, losses):
    """What is told of one trial's reports."""
    notes = Notes()
    listen(notes)
    for step, loss in enumerate(losses, start=1):
        stopper("t", {"value": loss, "training_iteration": step, "trial_id": "t"})
    return list(notes)


def test_every_decision_is_told_with_its_numbers_in_the_units_of_the_metric():
    """Also where the metric is maximised, and the rule saw it negated."""
    for mode, sign in (("min", 1), ("max", -1)):
        told = heard(
            PatienceStopper("value", mode, patience=2), [sign * x for x in (1.0, 3.0, 2.0)]
        )
        assert [verdict.decision.action.value for verdict in told] == ["CONTINUE"] * 2 + ["STOP"]
        assert {verdict.owner for verdict in told} == {"PatienceStopper"}
        last = metrics_of(told[-1])
        assert last["PatienceStopper/Patience/best"] == sign * 1.0
        assert last["PatienceStopper/Patience/patience"] == 2


def test_the_numbers_of_a_combination_are_named_by_its_members():
    """Two members may compare numbers of the same name."""
    rule = rules.Patience(2) | rules.Threshold(0.1)
    goes_on, stops = map(metrics_of, heard(RuleStopper(rule, "value", "min"), [1.0, 0.05]))
    assert goes_on["RuleStopper/Patience/loss"] == goes_on["RuleStopper/Threshold/loss"] == 1.0
    assert stops["RuleStopper/Threshold/threshold"] == 0.1


def test_rules_on_other_metrics_have_the_units_of_those():
    """Two of the same kind are told apart; a name with braces is no format."""
    rule = rules.On("{kl", rules.Threshold(0.1), "min") | rules.On(
        "f1", rules.Threshold(-0.9), "max"
    )
    notes = Notes()
    listen(notes)
    stopper = RuleStopper(rule)
    stopper("t", {"{kl": 0.5, "f1": 0.2, "training_iteration": 1, "trial_id": "t"})
    (found,) = map(metrics_of, notes)
    assert found["RuleStopper/Threshold/loss"] == 0.5
    assert found["RuleStopper/Threshold 2/loss"] == 0.2
    assert found["RuleStopper/Threshold 2/threshold"] == 0.9


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "a word", None])
def test_what_is_no_finite_number_is_left_out(value):
    """Trackers refuse some of it, and MLflow all."""
    decision = Decision(Action.STOP, "at {a}", "R", {"a": value, "b": 2})
    assert metrics_of(Verdict("t", "Owner", decision, 1, 3)) == {"Owner/R/b": 2.0}


def test_who_is_gone_hears_nothing():
    """A finished sweep's callback is not kept alive by those that announce."""
    notes = Notes()
    listen(notes)
    announce("one")
    assert notes == ["one"]
    gone = weakref.ref(notes)
    del notes
    gc.collect()
    assert gone() is None
    announce("two")


@pytest.mark.parametrize("saved", [True, False])
def test_a_scheduler_tells_whether_it_has_paused_the_trial(saved):
    """One whose report came without a checkpoint is not paused, whatever was decided."""
    notes = Notes()
    ray = StandIn(PromotionASHAScheduler(9, 1))
    ray.add("a", "b")
    ray.start()
    listen(notes)
    action = ray.report("a", 1, 1.0, saved=saved)
    assert [(told.trial_id, told.paused) for told in notes] == [("a", saved)]
    assert action == ("PAUSE" if saved else "CONTINUE")
