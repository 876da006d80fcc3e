"""`Forecast` stops what will hardly beat the target, and nothing where it cannot know."""

import json
import math

import numpy as np
import pytest

from tests.forecast.test_forecaster import falling
from tune_stoppers.core import Action, Report
from tune_stoppers.journal.lines import plain
from tune_stoppers.rules.sweep.forecast import Forecast


def run(rule, record, trial_id, losses, until=None, metrics=None):
    """The decision on each report; the trial ends where it is stopped or its losses do."""
    decisions = []
    for t, loss in enumerate(losses[:until], start=1):
        rates = {} if metrics is None else {"lr": metrics[t - 1]}
        decisions.append(rule.update(record, Report(trial_id, t, float(loss), rates)))
        if decisions[-1].action is Action.STOP:
            break
    if until is None:
        rule.ended(record, Report(trial_id, len(decisions), float(losses[len(decisions) - 1])))
    return decisions


def swept(rule, count=8, seed=0):
    """A record of `count` trials, to the end or until they were stopped, and the dice."""
    dice, record = np.random.default_rng(seed), rule.init()
    for number in range(count):
        run(rule, record, f"t{number}", falling(dice))
    return record, dice


def test_a_hopeless_trial_stops_and_a_promising_one_goes_on():
    """With the interval, the chance and the target in the reason."""
    rule = Forecast(max_t=20)
    record, dice = swept(rule)
    best = record.incumbent.loss
    bad = run(rule, record, "bad", best + 1 + 0.7 * np.arange(1, 21) ** -0.7)
    assert bad[-1].action is Action.STOP
    assert len(bad) < 10
    assert "with probability 0.0" in bad[-1].reason
    assert f"past the target {best:.6g}, 0.05 needed" in bad[-1].reason
    good = run(rule, record, "good", best - 0.1 + 0.7 * np.arange(1, 21) ** -0.7, until=19)
    assert all(decision.action is Action.CONTINUE for decision in good)
    del dice


def test_nothing_stops_before_trials_have_run_to_the_end():
    """The first ones do, whatever they look like; the reason says on how many it rests."""
    rule = Forecast(max_t=20)
    record = rule.init()
    dice = np.random.default_rng(3)
    for number in range(4):
        decisions = run(rule, record, f"t{number}", falling(dice) + number)
        assert len(decisions) == 20
        assert "the horizon 20 is reached" in decisions[-1].reason
    assert "not calibrated here" in decisions[5].reason
    assert "on 3 trials" in decisions[5].reason


def test_the_incumbent_is_exempt_unless_a_target_is_given():
    """It cannot be told to beat itself; a fixed target is for all."""
    record, _ = swept(rule := Forecast(max_t=20))
    best = np.r_[[0.01] * 20]
    assert "the incumbent" in run(rule, record, "best", best, until=12)[-1].reason
    record, _ = swept(rule := Forecast(max_t=20, target=-5.0))
    assert len(record.forecaster.past.trials) >= 4
    decisions = run(rule, record, "best", best)
    assert decisions[-1].action is Action.STOP
    assert len(decisions) < 20


def test_a_lower_probability_stops_later():
    """What it takes to give up is the user's choice."""
    ends = []
    for probability in (0.001, 0.3):
        record, dice = swept(rule := Forecast(max_t=20, probability=probability))
        ends.append(sum(len(run(rule, record, f"n{n}", falling(dice))) for n in range(10)))
    assert ends[1] < ends[0]


def test_a_repeat_gets_the_same_decision_and_a_rewind_counts_on():
    """Ray shows a function's last report twice; a restore goes back."""
    rule = Forecast(max_t=20)
    record, _ = swept(rule)
    losses = 0.3 + np.arange(1, 21) ** -0.7
    assert len(run(rule, record, "a", losses, until=8)) == 8
    before = rule.dump(record)
    again = rule.update(record, Report("a", 8, -100.0))
    assert again == record.judged["a"][1]
    assert rule.dump(record) == before
    other, _ = swept(rule)
    run(rule, other, "a", losses, until=5)
    for each in (record, other):
        rule.update(each, Report("a", 6, 0.7))
    assert record.forecaster.dump() == other.forecaster.dump()


def test_the_record_goes_to_json_and_back():
    """And decides the same from then on."""
    rule = Forecast(max_t=20, lr_metric="lr", schedule_end=10)
    record, dice = swept(rule)
    run(rule, record, "live", falling(dice), until=5, metrics=[1.0] * 5)
    loaded = rule.load(json.loads(json.dumps(plain(rule.dump(record)), allow_nan=False)))
    for number in range(6):
        losses = falling(dice)
        ours = run(rule, record, f"n{number}", losses)
        assert run(rule, loaded, f"n{number}", losses) == ours
    assert plain(rule.dump(loaded)) == plain(rule.dump(record))


def test_trials_that_never_were_leave_nothing():
    """After a restore: the incumbent is the best of the others."""
    rule = Forecast(max_t=20)
    record, dice = swept(rule)
    held = rule.dump(record)
    run(rule, record, "ghost", np.zeros(20))
    run(rule, record, "young", np.zeros(20), until=3)
    assert record.incumbent.trial_id == "ghost"
    rule.forget(record, ["ghost", "young", "unknown"])
    left = rule.dump(record)
    for key in ("judged", "bests", "incumbent", "rates"):
        assert left[key] == held[key]
    assert left["forecaster"]["past"]["trials"] == held["forecaster"]["past"]["trials"]
    del dice


@pytest.mark.parametrize(
    ("policy", "said"), [("worst", "no finite value"), ("stop", "not finite"), ("ignore", "noth")]
)
def test_values_that_are_not_finite_follow_the_policy(policy, said):
    """Worst by default: a trial without a finite value is not forecast."""
    rule = Forecast(max_t=20).with_policy(policy)
    decision = rule.update(rule.init(), Report("a", 1, math.nan))
    assert said in decision.reason
    assert (decision.action is Action.STOP) == (policy == "stop")


def test_a_value_that_is_not_finite_is_no_reason_to_go_on():
    """A trial that was as good as stopped is stopped on it."""
    record, _ = swept(rule := Forecast(max_t=20))
    run(rule, record, "bad", [5.0] * 3, until=2)
    assert rule.update(record, Report("bad", 6, math.inf)).action is Action.STOP


def test_no_trial_stops_while_its_learning_rate_says_wait():
    """In warm-up, and before an anneal that lies ahead."""
    rule = Forecast(max_t=20, lr_metric="lr", schedule_end=15)
    record, _ = swept(rule)
    bad = [5.0] * 20
    warming = run(rule, record, "w", bad, until=8, metrics=[0.1 * t for t in range(1, 9)])
    assert "lr still in warm-up" in warming[-1].reason
    waiting = run(rule, record, "a", bad, until=8, metrics=[1.0] * 8)
    assert "an anneal lies ahead until step 15" in waiting[-1].reason
    falls = run(rule, record, "d", bad, metrics=[1.0] * 4 + [0.5] * 16)
    assert falls[-1].action is Action.STOP
    assert len(falls) == 5


def test_start_after_sees_everything_and_decides_later():
    """From that time on, as if it had been there before."""
    record, _ = swept(rule := Forecast(max_t=20, start_after=12))
    assert len(run(rule, record, "bad", [5.0] * 20)) == 12


@pytest.mark.parametrize(
    ("given", "error", "why"),
    [
        ({"max_t": 0}, ValueError, "max_t must be > 0, got 0"),
        ({"probability": 0}, ValueError, "probability must be > 0, got 0"),
        ({"probability": 1.0}, ValueError, r"probability must be < 1, got 1\.0"),
        ({"target": math.inf}, ValueError, "target must be finite, got inf"),
        ({"start_after": -1}, ValueError, "start_after must be >= 0, got -1"),
        ({"schedule_end": 3}, ValueError, "schedule_end = 3 needs the learning rate"),
        ({"on_nonfinite": "last"}, ValueError, "on_nonfinite must be one of"),
        ({"history": [3]}, TypeError, "history takes recorded sweeps, .* got 3"),
    ],
)
def test_wrong_parameters_are_refused(given, error, why):
    """At once, with the value."""
    with pytest.raises(error, match=why):
        Forecast(**{"max_t": 20} | given)
