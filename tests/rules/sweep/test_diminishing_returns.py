"""`DiminishingReturns` ends a sweep that has little left to gain, and none that has much."""

import itertools
import json
import math
import random

import pytest

from tune_stoppers.core import Action, Report
from tune_stoppers.journal.lines import plain
from tune_stoppers.journal.spec import from_spec, to_spec
from tune_stoppers.rules.sweep.diminishing_returns import (
    DiminishingReturns,
    RunningTrial,
    gain_of,
    thinned_gain,
)

LENGTH = 10


def falling(level, dice, noise=0.0):
    """A power law down to `level`, with noise."""
    return [level + 0.5 * t**-1.5 + dice.gauss(0, noise) for t in range(1, LENGTH + 1)]


def sweep(rule, record, levels, dice=None, noise=0.0, seconds=None, name="t"):
    """Run trials to the end, one after the other; the decisions, to the sweep's end."""
    dice = dice or random.Random(0)
    decisions = []
    for number, level in enumerate(levels):
        trial_id = f"{name}{number}"
        for step, loss in enumerate(falling(level, dice, noise), start=1):
            spent = (seconds or 0.0) * (len(decisions) + 1)
            metrics = {"sweep_seconds": spent, "sweep_active_seconds": 2 * spent}
            metrics = {} if seconds is None else metrics
            decisions.append(rule.update(record, Report(trial_id, step, loss, metrics)))
            if decisions[-1].ends_sweep:
                return decisions
        rule.finished(record, trial_id)
    return decisions


def trials_run(decisions):
    return math.ceil(len(decisions) / LENGTH)


# -- the parts of the estimate ---------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0.5, 0.8])
def test_the_gain_of_new_trials_is_the_mean_over_all_subsets(keep):
    """Each trial left out by itself, by enumeration; if none stays, the last one counts."""
    losses = [1.0, 1.5, 1.6, 3.0]
    expected = 0.0
    for kept in itertools.product([True, False], repeat=len(losses)):
        chance = math.prod(keep if stays else 1 - keep for stays in kept)
        best = min((x for x, stays in zip(losses, kept, strict=True) if stays), default=losses[-1])
        expected += chance * (best - losses[0])
    assert thinned_gain(losses, keep) == pytest.approx(expected)


GAINS = [
    ("as much again in a doubling", 10, 20, 1.0, 0.5),
    ("in proportion in less of one", 10, 10 * 2**0.5, 1.0, 0.25),
    ("what the incumbent is ahead is not gained", 10, 20, 0.75, 0.25),
    ("out of reach", 10, 20, 0.4, 0.0),
    ("younger ones count as new", 10, 21, 1.0, 0.0),
    ("at the end nothing is left", 20, 20, 1.0, 0.0),
]


@pytest.mark.parametrize(
    ("time", "horizon", "incumbent", "expected"),
    [row[1:] for row in GAINS],
    ids=[row[0] for row in GAINS],
)
def test_a_running_trial_goes_on_at_the_pace_of_its_last_doubling(
    time, horizon, incumbent, expected
):
    """Its best fell from 1.5 to 1 over that."""
    run = RunningTrial(time=time, best=1.0, marks=[(time / 2, 1.5), (time, 1.0)])
    assert gain_of(run, horizon, incumbent) == pytest.approx(expected)


# -- the decision ----------------------------------------------------------------------------------


def test_a_sweep_of_equals_ends_and_one_that_still_gains_goes_on():
    """As soon as there is evidence, and not at all."""
    rule, dice = DiminishingReturns(min_trials=12), random.Random(3)
    alike = sweep(rule, rule.init(), [1.0] * 40, dice, noise=0.01)
    assert alike[-1].action is Action.STOP
    assert alike[-1].ends_sweep
    assert trials_run(alike) <= 16
    spread = sweep(rule, rule.init(), [dice.uniform(1, 9) for _ in range(40)], dice, noise=0.01)
    assert all(decision.action is Action.CONTINUE for decision in spread)


def test_the_reason_says_what_is_left_on_the_table():
    """With its parts, in the metric's own units; a gain has no sign."""
    rule = DiminishingReturns(min_trials=4, patience=2)
    stop = sweep(rule, rule.init(), [-1.0] * 9)[-1]
    assert stop.action is Action.STOP
    assert stop.say(-1).startswith(f"{stop.numbers['expected']:.3g} is expected to be left on the")
    assert f"to better {-stop.numbers['best']:.6g} by" in stop.say(-1)
    assert "the noise of an evaluation is" in stop.reason
    assert "2 checks in a row, 2 needed" in stop.reason
    assert stop.numbers["expected"] == stop.numbers["new"] + stop.numbers["running"]


def test_nothing_ends_before_there_is_evidence():
    """Not before `min_trials` trials, nor before one has come to its end; the reason says so."""
    rule = DiminishingReturns(min_trials=12)
    early = sweep(rule, rule.init(), [1.0] * 11)
    assert all(decision.action is Action.CONTINUE for decision in early)
    assert "11 trials have started, 12 needed; 10 have come to their end" in early[-1].reason
    record = rule.init()
    for number in range(60):
        decision = rule.update(record, Report(f"t{number}", 1, 1.0))
    assert decision.action is Action.CONTINUE
    assert "0 have come to their end, 1 needed" in decision.reason


def test_where_a_scheduler_ends_trials_max_t_is_their_end():
    """They never say themselves that they are done."""
    rule = DiminishingReturns(min_trials=12, max_t=3, patience=2)
    record, said = rule.init(), []
    for number in range(20):
        said += [rule.update(record, Report(f"t{number}", step, 1.0)) for step in (1, 2, 3)]
    assert said[-1].ends_sweep
    assert len(record.whole) == 20


def test_more_patience_ends_later():
    """By one check for each."""
    ends = []
    for patience in (1, 4):
        rule = DiminishingReturns(min_trials=6, patience=patience)
        ends.append(len(sweep(rule, rule.init(), [1.0] * 20)))
    assert ends[1] - ends[0] == 3


def test_a_check_needs_a_report_from_as_many_as_are_running():
    """Eight in step with each other make one check a round, not eight."""
    rule = DiminishingReturns(min_trials=8, patience=3, max_t=2)
    record, ends = rule.init(), None
    for step in range(1, 30):
        for number in range(8):
            decision = rule.update(record, Report(f"t{number}", step, 1.0))
        if decision.ends_sweep:
            ends = step
            break
    assert ends is not None
    assert ends >= 4


def test_nothing_ends_by_a_report_before_start_after():
    """What was seen until then counts: the first one after it ends the sweep."""
    rule = DiminishingReturns(min_trials=6, patience=1, start_after=LENGTH)
    decisions = sweep(rule, rule.init(), [1.0] * 20)
    assert decisions[-1].ends_sweep
    assert len(decisions) % LENGTH == 0
    rule = DiminishingReturns(min_trials=6, patience=1, start_after=LENGTH + 1)
    assert not sweep(rule, rule.init(), [1.0] * 20)[-1].ends_sweep


def test_a_trial_whose_turns_were_missed_is_no_longer_counted_on():
    """A scheduler ended it: what it was about to gain does not keep the sweep going."""
    rule = DiminishingReturns(min_trials=6, patience=1)
    record = rule.init()
    for step in range(1, LENGTH):
        rule.update(record, Report("steep", step, 22.2 - step))
    assert gain_of(record.running["steep"], LENGTH, 13.0) > 0.5
    sweep(rule, record, [13.0] * 8)
    assert "steep" not in record.running
    assert record.gain.running < 0.1


def test_an_hour_that_is_worth_more_than_it_gains_ends_the_sweep():
    """Though the gain is far above the noise; a cheap hour does not."""
    dice = random.Random(5)
    levels = [dice.uniform(1, 2) for _ in range(40)]
    ends = {}
    for worth in (None, 1e-3, 1.0):
        rule = DiminishingReturns(min_trials=12, worth=worth)
        ends[worth] = sweep(rule, rule.init(), levels, seconds=None if worth is None else 60.0)
    assert not ends[None][-1].ends_sweep
    assert len(ends[1e-3]) == len(ends[None])
    stop = ends[1.0][-1]
    assert stop.ends_sweep
    assert stop.numbers["needed"] == pytest.approx(1.0 * 60 * len(ends[1.0]) / 3600, rel=0.01)
    assert "the time is worth" in stop.reason


def test_money_that_is_worth_more_than_it_gains_ends_the_sweep():
    """Two trials at work, two GPUs each, at 9 an hour: 36 an hour; and the reason says the sum."""
    dice = random.Random(5)
    levels = [dice.uniform(1, 2) for _ in range(40)]
    price = {"gpu_hour_price": 9.0, "gpus_per_trial": 2, "currency": "EUR"}
    ends = {}
    for worth in (None, 1e-3 / 36, 1.0 / 36):
        rule = DiminishingReturns(min_trials=12, worth=worth, **price)
        ends[worth] = sweep(rule, rule.init(), levels, seconds=60.0)
    by_the_hour = DiminishingReturns(min_trials=12, worth=1.0)
    assert len(ends[1.0 / 36]) == len(sweep(by_the_hour, by_the_hour.init(), levels, seconds=60.0))
    assert len(ends[1e-3 / 36]) == len(ends[None])
    stop = ends[1.0 / 36][-1]
    assert stop.ends_sweep
    assert stop.numbers["money"] == pytest.approx(36 * 60 * len(ends[1.0 / 36]) / 3600, rel=0.01)
    assert f"times as long costs {stop.numbers['money']:.6g} EUR and is expected" in stop.reason
    assert "times as long costs" in ends[None][-1].reason


def test_to_look_further_ahead_is_to_expect_more():
    """More new trials start in that time."""
    dice = random.Random(6)
    levels = [dice.uniform(1, 2) for _ in range(30)]
    gains = []
    for ahead in (0.25, 1.0, 4.0):
        rule = DiminishingReturns(min_trials=12, ahead=ahead)
        gains.append(sweep(rule, rule.init(), levels)[-1].numbers["new"])
    assert gains[1] > 1.2 * gains[0]
    assert gains[2] > 1.2 * gains[1]


def test_a_huge_loss_of_a_diverged_trial_does_not_count():
    """Those in the worse half count as the last of the better half."""
    rule = DiminishingReturns(min_trials=12)
    levels = [1.0 if number % 2 == 0 else 1e18 for number in range(40)]
    assert sweep(rule, rule.init(), levels, noise=0.01)[-1].ends_sweep


# -- what every rule keeps to ----------------------------------------------------------------------


def test_a_repeat_gets_the_same_decision_and_changes_nothing():
    """Ray shows a function's last report twice; after the trial's end it is no report at all."""
    rule = DiminishingReturns(min_trials=4)
    record = rule.init()
    sweep(rule, record, [1.0, 1.1, 1.2])
    first = rule.update(record, Report("a", 1, 1.0))
    rule.update(record, Report("b", 1, 1.0))
    held = rule.dump(record)
    assert rule.update(record, Report("a", 1, -5.0)) == first
    assert rule.update(record, Report("t0", LENGTH, -5.0)).action is Action.CONTINUE
    assert rule.dump(record) == held


def test_a_trial_that_goes_back_keeps_what_it_reached():
    """Its pace is measured anew."""
    rule = DiminishingReturns(min_trials=4)
    record = rule.init()
    for step, loss in enumerate([3.0, 2.0, 1.0, 0.5], start=1):
        rule.update(record, Report("a", step, loss))
    rule.update(record, Report("a", 2, 2.5))
    assert record.top[0].loss == 0.5
    assert record.running["a"].best == 2.5
    assert record.running["a"].recent == [2.5]
    assert [time for time, _ in record.running["a"].marks] == [2]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_follow_the_policy(bad):
    """No improvement, the end of that trial alone, or nothing."""
    results = {}
    for policy in ("worst", "stop", "ignore"):
        rule = DiminishingReturns(min_trials=4).with_policy(policy)
        record = rule.init()
        decision = rule.update(record, Report("a", 1, bad))
        results[policy] = decision.action, decision.ends_sweep, record.reports, record.top
    assert results["worst"] == (Action.CONTINUE, False, 1, [])
    assert results["stop"] == (Action.STOP, False, 1, [])
    assert results["ignore"] == (Action.CONTINUE, False, 0, [])


def test_the_record_goes_to_json_and_back():
    """And decides the same from then on, to the end of the sweep."""
    rule, dice = DiminishingReturns(min_trials=12), random.Random(7)
    record = rule.init()
    sweep(rule, record, [1.0] * 10, dice, noise=0.01)
    rule.update(record, Report("nan", 1, math.nan))
    rule.update(record, Report("young", 1, 1.5))
    loaded = rule.load(json.loads(json.dumps(plain(rule.dump(record)), allow_nan=False)))
    ours = sweep(rule, record, [1.0] * 20, random.Random(8), 0.01, name="n")
    theirs = sweep(rule, loaded, [1.0] * 20, random.Random(8), 0.01, name="n")
    assert ours == theirs
    assert ours[-1].ends_sweep
    again = rule.load(json.loads(json.dumps(plain(rule.dump(record)))))
    last = next(reversed(record.running))
    repeat = Report(last, record.running[last].time, 9.0)
    assert rule.update(again, repeat) == ours[-1]


def test_trials_that_never_were_leave_nothing():
    """After a restore."""
    rule = DiminishingReturns(min_trials=4)
    record = rule.init()
    sweep(rule, record, [1.0, 1.1, 1.2])
    sweep(rule, record, [0.0], name="ghost")
    rule.update(record, Report("young", 1, -1.0))
    rule.forget(record, ["ghost0", "young", "unknown"])
    assert record.top[0].trial_id == "t0"
    assert set(record.heard) == record.whole == {"t0", "t1", "t2"}
    assert not record.running


def test_what_is_kept_does_not_grow_but_for_names():
    """The best, and those that have reported lately; a trial that falls silent goes."""
    rule, dice = DiminishingReturns(min_trials=4, max_t=100), random.Random(9)
    record = rule.init()
    for number in range(500):
        for step in range(1, 3 if number % 2 else 40):
            rule.update(record, Report(f"t{number}", step, dice.uniform(1, 2)))
    assert len(record.running) <= 5
    assert len(record.top) == rule.ranks <= 20
    assert all(len(run.marks) <= 7 for run in record.running.values())
    assert len(record.heard) == 500


def test_the_spec_of_the_rule_builds_it_again():
    """As a journal needs it."""
    rule = DiminishingReturns(min_trials=12, worth=0.5)
    assert from_spec(to_spec(rule)) == rule


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"patience": 0}, "patience must be >= 1, got 0"),
        ({"min_trials": 3}, "min_trials must be >= 4, got 3"),
        ({"ahead": 0}, "ahead must be > 0, got 0"),
        ({"ahead": 11}, "ahead must be <= 10, got 11"),
        ({"noise": -1}, "noise must be >= 0, got -1"),
        ({"gpu_hour_price": 0}, "gpu_hour_price must be > 0, got 0"),
        ({"currency": "EUR"}, "gpus_per_trial and currency are of use to gpu_hour_price alone"),
        ({"worth": 0}, "worth must be > 0, got 0"),
        ({"max_t": 0}, "max_t must be > 0, got 0"),
        ({"start_after": -1}, "start_after must be >= 0, got -1"),
        ({"on_nonfinite": "no"}, "on_nonfinite must be one of worst, stop, ignore, got 'no'"),
    ],
)
def test_wrong_parameters_are_named(wrong, message):
    """With the rule broken and the value got."""
    with pytest.raises(ValueError, match=message):
        DiminishingReturns(**wrong)
