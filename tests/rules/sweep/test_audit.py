"""What a rung's quota gets wrong in this sweep, and what follows from it."""

import json
import random

import pytest

from tune_stoppers.core import Action, Report
from tune_stoppers.rules.sweep.audit import Audit, Belief
from tune_stoppers.rules.sweep.bound_asha import BoundASHA

NO_BOUND = {"bound_after": 2.0}


def sweep(rule, curve, trials=60):
    """Trials one after the other; of each the newest decision and the steps it took."""
    record, told = rule.init(), []
    for number in range(trials):
        for step in range(1, 28):
            decision = rule.update(record, Report(f"t{number}", step, curve(number, step)))
            if decision.action is Action.STOP:
                break
        told.append((step, decision))
    return record, told


def steady(number, step):
    """Ranks that hold: the quota is right."""
    return random.Random(number).random() - 0.001 * step


def crossing(number, step):
    """The worst at the first rung are the best at the next."""
    first = random.Random(number).random()
    return first if step < 3 else 2 - first


def test_where_ranks_hold_a_tenth_is_tried_and_found_right() -> None:
    """The quota at the first rung stays, and next to nothing is spent on it."""
    rule = BoundASHA(max_t=27, grace_period=1, audit=10, **NO_BOUND)
    record, told = sweep(rule, steady)
    belief = record.audit.belief(0)
    assert belief.tried >= 3
    assert belief.wrong == 0
    assert not belief.suspended
    _, strict = sweep(BoundASHA(max_t=27, grace_period=1, **NO_BOUND), steady)
    assert sum(step for step, _ in told) < 1.25 * sum(step for step, _ in strict)


def test_where_ranks_turn_round_the_quota_is_suspended() -> None:
    """Trials that the first rung would have stopped win."""
    rule = BoundASHA(max_t=27, grace_period=1, audit=10, **NO_BOUND)
    record, told = sweep(rule, crossing)
    assert record.audit.belief(0).suspended
    losses = [crossing(number, 27) for number in range(60)]
    best = losses.index(min(losses))
    assert told[best][0] == 27
    _, strict = sweep(BoundASHA(max_t=27, grace_period=1, **NO_BOUND), crossing)
    assert strict[best][0] < 27


def test_the_decision_says_what_is_believed() -> None:
    """In words and numbers: which quota, how often it was wrong, of how many."""
    rule = BoundASHA(max_t=9, grace_period=1, audit=10, **NO_BOUND)
    record = rule.init()
    for number, loss in enumerate((1.0, 2.0)):
        rule.update(record, Report(f"t{number}", 1, loss))
    decision = rule.update(record, Report("spared", 1, 3.0))
    assert decision.action is Action.CONTINUE
    assert decision.say() == (
        "3: fails the quota at rung 1, let go on to the next to see if that quota errs: so far "
        "wrong for 0 of 0 such trials"
    )
    rule.update(record, Report("spared", 3, 0.5))
    assert record.audit.belief(0) == Belief(1, 1)


def test_a_spared_trial_is_exempt_from_the_bound_until_its_next_rung() -> None:
    """Or nothing would be learnt of the quota."""
    rule = BoundASHA(max_t=100, grace_period=1, reduction_factor=3, audit=1, min_trials=1)
    record = rule.init()
    for number in range(3):
        for step in range(1, 61):
            rule.update(record, Report(f"t{number}", step, 0.01 - 1e-5 * step))
    actions = {}
    for step in range(1, 101):
        actions[step] = rule.update(record, Report("flat", step, 5.0)).action
        if actions[step] is Action.STOP:
            break
    assert step == 81  # the last rung, which is not audited: not at 20, where the bound begins


def test_a_trial_that_goes_back_is_still_let_go_on() -> None:
    """The rung whose quota it failed, reached again, says nothing of that quota."""
    rule = BoundASHA(max_t=9, grace_period=1, audit=10, **NO_BOUND)
    record = rule.init()
    for number, loss in enumerate((1.0, 2.0)):
        rule.update(record, Report(f"t{number}", 1, loss))
    for step in (1, 2, 1, 2):
        assert rule.update(record, Report("spared", step, 3.0)).action is Action.CONTINUE
    assert record.audit.belief(0) == Belief(0, 0)
    rule.update(record, Report("spared", 3, 0.5))
    assert record.audit.belief(0) == Belief(1, 1)


def test_a_trial_that_ends_before_its_next_rung_says_nothing() -> None:
    """Neither does one that never was."""
    audit = Audit.of(2)
    assert audit.fails("a", 0, 10)
    audit.forget(["a", "unknown"])
    audit.comes_to_rung("a", 1, passes=True)
    assert audit.belief(0) == Belief(0, 0)


def test_a_suspended_quota_comes_back() -> None:
    """While it is suspended every failure is counted."""
    audit = Audit.of(2)
    for _ in range(4):
        audit.fails("a", 0, 1)
        audit.comes_to_rung("a", 1, passes=True)
    assert audit.belief(0).suspended
    assert audit.belief(0).share == pytest.approx(4.5 / 9)
    for _ in range(20):
        assert audit.fails("a", 0, 1_000_000) or not audit.belief(0).suspended
        audit.comes_to_rung("a", 1, passes=False)
    assert not audit.belief(0).suspended


def test_what_is_believed_survives_a_restore() -> None:
    """A record that was written down goes on as one that was not."""
    rule = BoundASHA(max_t=27, grace_period=1, audit=3, drop="typical", bound_after=0.1)
    record, _ = sweep(rule, crossing, trials=20)
    copy = rule.load(json.loads(json.dumps(rule.freeze(record)())))
    assert rule.dump(copy) == rule.dump(record)
    for step in range(1, 28):
        report = Report("next", step, crossing(77, step))
        assert rule.update(copy, report) == rule.update(record, report)
    rule.forget(record, ["next", "t1"])
    rule.forget(copy, ["next", "t1"])
    assert rule.dump(copy) == rule.dump(record)


@pytest.mark.parametrize(
    ("given", "message"),
    [({"audit": 0}, "audit must be >= 1, got 0"), ({"drop": "best"}, "drop must be")],
)
def test_bad_parameters_are_named(given, message) -> None:
    """One clear error, with the value given."""
    with pytest.raises(ValueError, match=message):
        BoundASHA(max_t=9, **given)
