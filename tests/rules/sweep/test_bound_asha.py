"""BoundASHA: rungs, quota, bound, and what is recorded when."""

import json
import math
import random
from typing import Any

import pytest

from tune_stoppers.core import Action, Report
from tune_stoppers.rules.sweep.bound_asha import BoundASHA, BoundASHARecord
from tune_stoppers.rules.sweep.rung import Rung

NO_BOUND = {"bound_after": 2.0}  # beyond the horizon: the quota alone


def feed(
    rule: BoundASHA, record: BoundASHARecord, trial: str, *reports: tuple[float, float]
) -> bool:
    """Whether the trial is stopped at one of the (time, loss) reports; later ones are not fed."""
    return any(
        rule.update(record, Report(trial, time, loss)).action is Action.STOP
        for time, loss in reports
    )


@pytest.mark.parametrize(
    ("max_t", "grace", "factor", "rungs"),
    [
        (243, 1, 3, (1, 3, 9, 27, 81)),
        (1000, 1, 10, (1, 10, 100)),  # logarithms would lose the last
        (81, None, 3, (4, 12, 36)),  # 4 % of 81, rounded up
        (100, None, 3, (4, 12, 36)),
        (1.0, None, 2, (0.04, 0.08, 0.16, 0.32, 0.64)),
        (10, 10, 3, ()),
    ],
)
def test_rungs_are_multiplied_up(
    max_t: float, grace: float | None, factor: float, rungs: tuple[float, ...]
) -> None:
    """Rungs are grace·ηᵏ below the horizon, exactly."""
    rule = BoundASHA(max_t=max_t, grace_period=grace, reduction_factor=factor)
    assert rule.rungs == pytest.approx(rungs)


@pytest.mark.parametrize(
    ("losses", "stopped"),
    [
        ([1.0, 2.0], [False, False]),  # below η there is no quota
        ([1.0, 2.0, 3.0], [False, False, True]),
        ([3.0, 2.0, 1.0], [False, False, False]),
        ([1.0, 1.0, 1.0, 1.0], [False] * 4),  # ties are in the trial's favour
        ([1.0, 2.0, 3.0, 1.5], [False, False, True, False]),  # rank 2 of 4: 1·3 <= 3
        ([1.0, 2.0, 3.0, 2.5], [False, False, True, True]),  # rank 3 of 4: 2·3 > 3
        ([math.nan, 2.0, 3.0], [True, False, True]),  # worst, recorded: 3 is rank 2 of 3, 1·3 > 2
    ],
)
def test_quota(losses: list[float], stopped: list[bool]) -> None:
    """A trial survives iff (rank - 1)·η <= n - 1, its own loss included."""
    rule = BoundASHA(max_t=9, grace_period=1, **NO_BOUND)
    record = rule.init()
    got = [feed(rule, record, f"t{i}", (1, loss)) for i, loss in enumerate(losses)]
    assert got == stopped


def test_trial_is_recorded_before_it_is_tested() -> None:
    """A stopped trial's loss stays in the rung: survivors alone would make the quota compound."""
    rule = BoundASHA(max_t=9, grace_period=1, **NO_BOUND)
    record = rule.init()
    for i in range(6):
        feed(rule, record, f"t{i}", (1, float(i)))
    assert len(record.rungs[0].losses) == 6


def test_later_reports_do_not_reach_lower_rungs() -> None:
    """Each rung gets one loss of a trial, that of when it was reached, whatever comes later."""
    rule = BoundASHA(max_t=100, grace_period=1, reduction_factor=4, **NO_BOUND)
    record = rule.init()
    feed(rule, record, "sparse", (20, 3.0), (40, 2.0), (60, 1.0))
    assert [rung.of_trial for rung in record.rungs] == [{"sparse": 3.0}] * 3 + [{}]
    feed(rule, record, "sparse", (70, 0.5))
    assert record.rungs[3].of_trial == {"sparse": 0.5}


def test_rungs_passed_at_once_get_the_loss_the_trial_had_there() -> None:
    """Between reports at 2 and 10, rung 3 was passed with the loss of 2."""
    rule = BoundASHA(max_t=100, grace_period=1, **NO_BOUND)
    record = rule.init()
    feed(rule, record, "t", (2, 5.0), (10, 1.0))
    assert [rung.of_trial.get("t") for rung in record.rungs[:4]] == [5.0, 5.0, 1.0, None]


def test_rungs_passed_at_once_are_judged_in_order() -> None:
    """A trial that fails at the lower of two rungs is not recorded at the higher."""
    rule = BoundASHA(max_t=100, grace_period=1, **NO_BOUND)
    record = rule.init()
    for trial in "abc":
        feed(rule, record, trial, (1, 1.0))
    assert feed(rule, record, "late", (10, 9.0))
    assert "late" in record.rungs[0].of_trial
    assert "late" not in record.rungs[1].of_trial


def test_repeated_report_changes_nothing() -> None:
    """The same time again is the same decision, and no second entry."""
    rule = BoundASHA(max_t=9, grace_period=1)
    record = rule.init()
    first = rule.update(record, Report("t", 1, 2.0))
    assert rule.update(record, Report("t", 1, 99.0)) is first
    assert record.rungs[0].losses == [2.0]
    assert len(record.bests) == 1


def test_trial_that_goes_back_replaces_its_own_entries() -> None:
    """Reports repeated from an earlier point leave one entry a rung, the newest."""
    rule = BoundASHA(max_t=100, grace_period=1, **NO_BOUND)
    record = rule.init()
    feed(rule, record, "t", *((time, 10.0 - time) for time in range(1, 10)))
    feed(rule, record, "t", *((time, 20.0 - time) for time in range(1, 4)))
    assert [rung.losses for rung in record.rungs[:3]] == [[19.0], [17.0], [1.0]]


def hopeless_sweep(**changes: float) -> tuple[bool, bool]:
    """Whether a flat trial, and one that falls fast, are stopped by a bound at half time."""
    rule = BoundASHA(max_t=16, grace_period=16, **changes)  # type: ignore[arg-type]
    record = rule.init()
    for trial, loss in (("best", 1.0), ("b", 2.0), ("c", 2.0)):
        feed(rule, record, trial, *((t, loss) for t in range(1, 9)))
    flat = feed(rule, record, "flat", *((t, 3.0) for t in range(1, 9)))
    falling = feed(rule, record, "falling", *((t, 5.0 - 0.3 * t) for t in range(1, 9)))
    return flat, falling


@pytest.mark.parametrize(
    ("changes", "stopped"),
    [
        ({}, (True, False)),
        ({"bound_after": 0.6}, (False, False)),  # not before 0.6·16
        ({"optimism": 0.1}, (True, True)),  # 2.6 - 0.1·1.2·1 > 1
        ({"min_trials": 6}, (False, False)),
    ],
)
def test_bound(changes: dict[str, float], stopped: tuple[bool, bool]) -> None:
    """A trial stops when even `optimism` times its last drop per doubling misses the best."""
    assert hopeless_sweep(**changes) == stopped


def test_incumbent_is_exempt_from_the_bound() -> None:
    """The trial that holds the best loss goes on, though it has stopped improving."""
    rule = BoundASHA(max_t=16, grace_period=16)
    record = rule.init()
    for trial in "abc":
        feed(rule, record, trial, (1, 9.0))
    assert not feed(rule, record, "best", (1, 1.0), *((t, 1.5) for t in range(2, 16)))


def test_noise_is_allowed_for() -> None:
    """A rough curve is stopped later than a smooth one with the same drop."""
    rule = BoundASHA(max_t=16, grace_period=16, noise=10.0)
    record = rule.init()
    feed(rule, record, "best", (1, 1.0))
    for trial in "abc":
        feed(rule, record, trial, (1, 9.0))
    rough = [(t, 3.0 + 0.5 * (t % 2)) for t in range(1, 9)]
    assert not feed(rule, record, "rough", *rough)
    assert feed(rule, record, "smooth", *((t, 3.0) for t in range(1, 9)))


def test_window_keeps_the_newest() -> None:
    """With a window, old entries leave the rung."""
    rung = Rung(window=3)
    for i, loss in enumerate([5.0, 1.0, 4.0, 2.0, 3.0]):
        rung.record(f"t{i}", loss)
    assert rung.losses == [2.0, 3.0, 4.0]


def test_horizon_ends_a_trial() -> None:
    """A trial stops at `max_t`."""
    rule = BoundASHA(max_t=1.0, grace_period=0.5)
    assert feed(rule, rule.init(), "t", (0.9, 1.0), (1.0, 1.0))


def test_ending_is_recorded_but_a_crash_is_not() -> None:
    """What a stopper or its own end takes away counts at its rung; a lost trial adds nothing."""
    rule = BoundASHA(max_t=100, grace_period=4, **NO_BOUND)
    record = rule.init()
    feed(rule, record, "stopped", (3, 2.0))
    rule.ended(record, Report("stopped", 4, 1.5))
    feed(rule, record, "crashed", (3, 0.1))
    rule.lost(record, "crashed")
    assert record.rungs[0].of_trial == {"stopped": 1.5}


def test_ended_trial_that_is_restored_changes_nothing() -> None:
    """A trial that Ray restores from before its end gets the decision it had, and no new entry."""
    rule = BoundASHA(max_t=9, grace_period=3, **NO_BOUND)
    record = rule.init()
    feed(rule, record, "t", (3, 5.0))
    last = rule.update(record, Report("t", 9, 1.0))
    rule.ended(record, Report("t", 9, 1.0))
    assert rule.update(record, Report("t", 9, 1.0)) is last
    rule.ended(record, Report("t", 9, 1.0))
    assert record.rungs[0].of_trial == {"t": 5.0}


def test_retried_trial_goes_on_where_it_was() -> None:
    """A trial that crashed and goes on from a checkpoint leaves the rungs it had passed alone."""
    rule = BoundASHA(max_t=100, grace_period=4, **NO_BOUND)
    record = rule.init()
    feed(rule, record, "t", (4, 5.0), (8, 3.0))
    rule.lost(record, "t")
    feed(rule, record, "t", (8.5, 2.0))
    assert record.rungs[0].of_trial == {"t": 5.0}


def test_forgotten_trials_leave_no_trace() -> None:
    """After `forget`, the record is that of a sweep in which the trial never was."""
    rule = BoundASHA(max_t=100, grace_period=1)
    with_ghost, without = rule.init(), rule.init()
    feed(rule, with_ghost, "ghost", (1, 0.1), (3, 0.1))
    for record in (with_ghost, without):
        feed(rule, record, "a", (1, 2.0), (2, 1.5))
        feed(rule, record, "b", (1, 3.0))
    rule.forget(with_ghost, ["ghost", "never seen"])
    for part in ("rungs", "bests", "incumbent"):
        assert rule.dump(with_ghost)[part] == rule.dump(without)[part]
    assert with_ghost.courses.keys() == without.courses.keys()
    assert with_ghost.incumbent.trial_id == "a"


def test_record_survives_json() -> None:
    """A record that went to JSON and back decides as the one that did not."""
    rule = BoundASHA(max_t=40, grace_period=2, window=20)
    generator = random.Random(1)
    reports = [
        Report(
            f"t{trial}", time, generator.choice([trial + 1 / time, math.nan, generator.random()])
        )
        for time in range(1, 30)
        for trial in range(12)
    ]
    kept, stored = rule.init(), rule.init()
    for report in reports:
        assert rule.update(kept, report).say() == rule.update(stored, report).say()
        stored = rule.load(json.loads(json.dumps(rule.dump(stored))))
    assert json.dumps(rule.dump(kept)) == json.dumps(rule.dump(stored))


def test_state_of_a_trial_stays_small() -> None:
    """However long a trial runs, what is remembered of it does not grow."""
    rule = BoundASHA(max_t=100_000, grace_period=1)
    record = rule.init()
    generator = random.Random(0)
    for time in range(1, 5_000):
        rule.update(record, Report("t", time, 1 / time + generator.random() / 100))
    assert len(record.courses["t"].times) <= 12
    assert record.courses["t"].times[0] <= 5_000 / 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_t": 0}, "max_t must be > 0"),
        ({"max_t": math.inf}, "max_t must be finite"),
        ({"grace_period": 101}, "grace_period must be <= max_t = 100, got 101"),
        ({"reduction_factor": 1}, "reduction_factor must be > 1"),
        ({"optimism": -1}, "optimism must be >= 0"),
        ({"window": 2}, "window must be >= 3"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, float], message: str) -> None:
    """A parameter out of range is one clear error at construction."""
    with pytest.raises(ValueError, match=message):
        BoundASHA(**{"max_t": 100} | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lr", "schedule_end", "stopped"),
    [
        (lambda t: 0.1, None, True),  # constant: nothing to wait for
        (lambda t: 0.01 * t, None, False),  # warm-up
        (lambda t: 0.1, 12, False),  # an anneal lies ahead
        (lambda t: 0.1, 4, True),  # the schedule has ended
        (lambda t: 0.1 / t, 12, True),  # it has begun to fall
        (lambda t: math.nan, None, True),  # never known
    ],
)
def test_bound_waits_for_the_learning_rate(lr: Any, schedule_end: Any, stopped: bool) -> None:
    """In warm-up, and before an anneal, the bound does not act; the quota does."""
    rule = BoundASHA(max_t=16, grace_period=16, lr_metric="lr", schedule_end=schedule_end)
    record = rule.init()
    for trial in ("best", "b", "c"):
        feed(rule, record, trial, (1, 1.0 if trial == "best" else 2.0))
    decisions = [rule.update(record, Report("t", t, 3.0, {"lr": lr(t)})) for t in range(1, 9)]
    assert (decisions[-1].action is Action.STOP) == stopped
    assert stopped or "lr" in decisions[-1].reason


def test_a_factor_near_one_is_refused() -> None:
    """Billions of rungs are a mistake, not a wait."""
    with pytest.raises(ValueError, match="more than 1000 rungs"):
        BoundASHA(max_t=1e308, grace_period=1, reduction_factor=1.0000001)


@pytest.mark.parametrize(("drop", "stopped"), [("own", True), ("typical", False)])
def test_a_usual_standstill_is_not_held_against_a_trial(drop: Any, stopped: bool) -> None:
    """With the sweep's typical drop; a trial that lags behind its peers' age is still stopped."""
    rule = BoundASHA(max_t=16, grace_period=16, drop=drop)
    record = rule.init()
    for number in range(4):  # each falls by 1 from step 2 to 4
        falling = [(step, 5.0 - number / 10 - 0.5 * step) for step in range(1, 9)]
        feed(rule, record, f"t{number}", *falling)
    assert feed(rule, record, "flat", (1, 4.0), (2, 4.0), (3, 4.0), (4, 4.0)) == stopped
    assert feed(rule, record, "hopeless", *((t, 90.0) for t in range(1, 5)))


@pytest.mark.parametrize("drop", ["own", "typical"])
def test_an_evaluation_before_the_first_step_is_too_early_for_the_bound(drop) -> None:
    """At time 0 no doubling has passed, also where the bound is to act from the beginning."""
    rule = BoundASHA(max_t=9, grace_period=1, bound_after=0, drop=drop)
    record = rule.init()
    for number in range(5):
        decision = rule.update(record, Report(f"t{number}", 0, float(number)))
    assert "too early for the bound" in decision.say()


def started(rule: BoundASHA, losses: float = 0.40) -> BoundASHARecord:
    """A record of four trials that have reported once, the best of them."""
    record = rule.init()
    for trial in "abcd":
        feed(rule, record, trial, (1, losses))
    return record


@pytest.mark.parametrize("drop", ["own", "typical"])
@pytest.mark.parametrize("max_t", [5, 7, 10])
def test_the_bound_waits_for_four_reports(max_t: int, drop: Any) -> None:
    """Two of them, one a hair worse, say nothing of a trial; the fourth may."""
    rule = BoundASHA(max_t=max_t, grace_period=max_t, drop=drop)
    record = started(rule)
    feed(rule, record, "a", (2, 0.30), (3, 0.299), (4, 0.298))
    assert not feed(rule, record, "b", (2, 0.41), (3, 0.41))
    assert "3 reports are too few for the bound, 4 needed" in record.courses["b"].decision.say()
    assert feed(rule, record, "b", (4, 0.41))


def test_the_noise_of_the_sweep_is_allowed_while_the_own_is_unknown() -> None:
    """Four reports that happen to lie flat are no proof where the other trials' jump about."""
    dice = random.Random(3)

    def stopped(noise: float) -> bool:
        rule = BoundASHA(max_t=8, grace_period=8)
        record = started(rule)
        for trial in "abc":
            rough = ((t, 0.40 + noise * dice.choice([-1, 1])) for t in range(2, 9))
            feed(rule, record, trial, *rough)
        feed(rule, record, "best", (1, 0.37), (2, 0.36))
        return feed(rule, record, "flat", *((t, 0.40) for t in range(1, 5)))

    assert stopped(noise=0.0001)
    assert not stopped(noise=0.03)


@pytest.mark.parametrize("items", [50, 7, 300])
def test_one_step_of_a_coarse_metric_decides_nothing(items: int) -> None:
    """Of accuracy on so many items: one item fewer than the best is as good, two are not.

    Also while no trial's accuracy has moved at all.
    """
    for moves in (True, False):
        rule = BoundASHA(max_t=20, grace_period=20)
        record = rule.init()
        right = items // 2
        trials = {"best": right, "b": right - 1, "c": right - 2, "d": right - 3}
        for trial, correct in trials.items():
            feed(rule, record, trial, (1, -(correct - moves) / items))
        for trial, correct in trials.items():
            reports = [(t, -correct / items) for t in range(2, 20)]
            assert feed(rule, record, trial, *reports) == (trial in "cd")


def test_a_metric_that_moves_smoothly_has_next_to_no_step() -> None:
    """A trial that is clearly worse, and stands still, is stopped as soon as it may be."""
    rule = BoundASHA(max_t=20, grace_period=20)
    record = rule.init()
    for number, trial in enumerate("abcd"):
        feed(rule, record, trial, *((t, 0.5 + number / 100 + 1 / t) for t in range(1, 20)))
    assert feed(rule, record, "still", *((t, 0.7) for t in range(1, 5)))


def test_what_allows_for_noise_is_forgotten_with_the_trials() -> None:
    """A trial that never was leaves neither its noise nor its steps."""
    rule = BoundASHA(max_t=20, grace_period=20)
    with_ghost, without = rule.init(), rule.init()
    feed(rule, with_ghost, "ghost", *((t, 0.001 * (t % 2)) for t in range(1, 7)))
    for record in (with_ghost, without):
        feed(rule, record, "a", *((t, 1 / t) for t in range(1, 7)))
    rule.forget(with_ghost, ["ghost"])
    assert rule.dump(with_ghost) == rule.dump(without)
    assert with_ghost.step == without.step == pytest.approx(1 / 5 - 1 / 6)
