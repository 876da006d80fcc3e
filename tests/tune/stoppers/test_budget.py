"""`BudgetStopper`: results with their times in, ends of trials and of the sweep out."""

import math
import pickle
import tempfile
import time
from pathlib import Path

import pandas as pd
import pytest
from ray import cloudpickle, tune

from tests.stand_ins.ray_runs import fit
from tune_stoppers import BudgetStopper, PatienceStopper, replay
from tune_stoppers.core import MissingMetricError
from tune_stoppers.journal.lines import read_journal
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.tune.stoppers.budget import use_clock

NAN, INF = math.nan, math.inf


def result(iteration, seconds, since=None, **more):
    """A result as Ray makes it, as far as budgets read it."""
    found = {"training_iteration": iteration, "iterations_since_restore": since or iteration}
    took = {} if seconds is None else {"time_this_iter_s": seconds}
    return {"x": 0.0} | found | took | more


def ends(stopper, times, trial="t"):
    """The steps, from 1, at which the stopper ends the trial."""
    return [i for i, t in enumerate(times, start=1) if stopper(trial, result(i, t))]


class Clock:
    """Seconds that pass when told to."""

    now = 1e6

    def __call__(self):
        return self.now


# -- active time -----------------------------------------------------------------------------------

TIMES = [
    ("the sum counts", [4, 4, 4], [3]),
    ("a single long report", [11], [1]),
    ("whole numbers are numbers", [10], [1]),
    ("no time, no end", [0, 0, 0], []),
    ("a negative time spends nothing", [6, -5, 3, 1], [4]),
    ("NaN spends nothing", [6, NAN, 3, 1], [4]),
    ("infinity is no time", [6, INF, -INF, 3, 1], [5]),
    ("a huge time is spent", [1e300], [1]),
    ("huge times overflow into an end", [1.7e308, 1.7e308], [1, 2]),
    ("a report without its time spends nothing", [6, None, 3, 1], [4]),
    ("nor does one with a text", [6, "long", 3, 1], [4]),
    ("it stays spent", [10, 0, 0], [1, 2, 3]),
]


@pytest.mark.parametrize(
    ("times", "expected"), [row[1:] for row in TIMES], ids=[row[0] for row in TIMES]
)
def test_a_trial_ends_when_its_active_time_is_spent(times, expected):
    """As a budget of that trial, and of GPU-hours while it is the only one."""
    assert ends(BudgetStopper(10), times) == expected
    assert ends(BudgetStopper(gpu_hours=10 / 3600, on_end="drain"), times) == expected


def test_trials_have_budgets_of_their_own():
    """And the reason is in the result."""
    stopper, last = BudgetStopper(10), result(2, 5.0)
    assert ends(stopper, [9.0], "a") == ends(stopper, [9.0], "b") == []
    assert stopper("a", last)
    assert last["stop_reason"] == "BudgetStopper: the trial has used 14 of 10 s"
    assert not stopper.stop_all()


def test_rays_repeated_last_report_is_no_work():
    """The same result comes again, as done."""
    stopper, last = BudgetStopper(10), result(2, 4.0)
    assert not stopper("t", result(1, 4.0))
    assert not stopper("t", last)
    assert not stopper("t", last | {"done": True})
    assert not stopper("t", result(3, 1.0))
    assert stopper("t", result(4, 1.0))


def test_work_that_a_restart_lost_stays_spent():
    """From 3 back to 1, and the same again: five reports of 4 seconds."""
    stopper = BudgetStopper(20)
    told = [(1, 1), (2, 2), (3, 3), (2, 1), (3, 2)]  # step, reports since the restart
    assert [stopper("t", result(s, 4.0, since)) for s, since in told] == [False] * 4 + [True]


def test_a_trial_that_fails_at_the_same_step_for_ever_ends():
    """Each attempt is a process of its own, and its work is done."""
    stopper = BudgetStopper(10)
    attempts = [stopper("t", result(1, 4.0, 1, pid=pid)) for pid in (11, 12, 13)]
    assert attempts == [False, False, True]


def test_a_clock_of_the_users_that_runs_backwards_hides_no_work():
    """Steps may fall without a restart; time is spent all the same."""
    stopper = BudgetStopper(10, time_attr="step")
    told = [(5, 1), (4, 2), (3, 3)]
    stops = [stopper("t", result(i, 4.0, step=step)) for step, i in told]
    assert stops == [False, False, True]


def test_a_time_that_is_not_finite_follows_the_policy():
    """ "stop" ends the trial, "ignore" passes over the report."""
    assert ends(BudgetStopper(10, on_nonfinite="stop"), [1.0, NAN, 1.0]) == [2]
    assert ends(BudgetStopper(10, on_nonfinite="ignore"), [6.0, NAN, 6.0]) == [3]


def test_a_time_that_nobody_reports_ends_the_sweep():
    """Unless it is to wait; a budget by the clock needs no such time."""
    with pytest.raises(MissingMetricError, match="'time_this_iter_s' is missing"):
        BudgetStopper(10)("t", result(1, None))
    assert ends(BudgetStopper(10, on_missing="skip"), [None, 11.0]) == [2]
    assert ends(BudgetStopper(sweep_seconds=1e9), [None]) == []


def test_a_result_that_ray_made_up_is_let_through():
    """A function that returned without a report."""
    assert not BudgetStopper(10)("t", {"trial_id": "t", "done": True})


# -- the sweep -------------------------------------------------------------------------------------


def test_gpu_hours_are_those_of_all_trials():
    """Two GPUs each: 900 + 900 seconds make an hour."""
    stopper, last = BudgetStopper(gpu_hours=1, gpus_per_trial=2), result(1, 900.0)
    assert not stopper("a", result(1, 900.0))
    assert not stopper.stop_all()
    assert stopper("b", last)
    assert last["stop_reason"] == "BudgetStopper: the sweep has used 1 of 1 GPU-hours"
    assert stopper.stop_all()


def test_a_sweep_that_drains_ends_each_trial_at_its_next_report():
    """Also those that have not yet reported, and never all at once."""
    stopper = BudgetStopper(gpu_hours=1, on_end="drain")
    assert not stopper("a", result(1, 1800.0))
    assert stopper("b", result(1, 1800.0))
    assert not stopper.stop_all()
    assert stopper("a", result(2, 1.0))
    assert stopper("c", result(1, 1.0))
    assert not stopper.stop_all()


def test_the_sweeps_clock_ends_it_between_two_reports(caplog):
    """It runs from the controller's first question on; `caplog` has the reason."""
    clock, stopper = Clock(), BudgetStopper(sweep_seconds=60)
    use_clock(stopper, clock)
    clock.now += 1000  # before the sweep
    assert not stopper.stop_all()
    clock.now += 59
    assert not stopper.stop_all()
    assert ends(stopper, [1.0]) == []
    clock.now += 1
    assert stopper.stop_all()
    assert stopper.stop_all()
    assert caplog.messages == ["BudgetStopper: the sweep has run 60 of 60 s: every trial ends."]


def test_a_clock_that_drains_waits_for_reports():
    """Nothing ends by itself."""
    clock, stopper = Clock(), BudgetStopper(sweep_seconds=60, on_end="drain")
    use_clock(stopper, clock)
    assert not stopper.stop_all()
    clock.now += 60
    assert not stopper.stop_all()
    assert ends(stopper, [1.0]) == [1]
    assert not stopper.stop_all()


def test_a_dry_run_ends_nothing():
    """Its results say what would have ended them."""
    clock, stopper = Clock(), BudgetStopper(sweep_seconds=60, gpu_hours=9, dry_run=True)
    use_clock(stopper, clock)
    assert not stopper.stop_all()
    clock.now += 60
    told = result(1, 1.0)
    assert not stopper("t", told)
    assert not stopper.stop_all()
    assert told["would_stop_reason"] == "BudgetStopper: the sweep has run 60 of 60 s"


def test_it_can_begin_to_decide_late():
    """Everything is counted, also before."""
    stopper = BudgetStopper(gpu_hours=1, start_after=3)
    assert ends(stopper, [3600.0, 1.0, 1.0]) == [3]
    assert stopper.stop_all()


def test_it_combines_with_other_stoppers():
    """Its end of the sweep is theirs, and its clock is reached through them."""
    clock = Clock()
    stopper = BudgetStopper(sweep_seconds=60) | PatienceStopper("x", "min", patience=2)
    use_clock(stopper, clock)
    assert ends(stopper, [1.0, 1.0, 1.0]) == [3]
    assert not stopper.stop_all()
    clock.now += 60
    assert stopper.stop_all()


def test_it_takes_part_in_an_intersection():
    """Patience alone or the budget alone stops nothing."""
    stopper = BudgetStopper(10) & PatienceStopper("x", "min", patience=1)
    assert ends(stopper, [6.0, 3.0, 1.0]) == [3]


def test_each_decision_is_journalled(tmp_path):
    """With the seconds compared; a repeated report has no line."""
    path = tmp_path / "decisions.jsonl"
    stopper = BudgetStopper(10, journal=path)
    ends(stopper, [4.0, 8.0])
    stopper("t", result(2, 8.0))
    first, second = [line for line in read_journal(path) if "action" in line]
    assert (first["action"], second["action"]) == ("CONTINUE", "STOP")
    assert second["numbers"] == {"trial_seconds": 12.0, "trial_seconds_budget": 10}


# -- kept with the experiment ----------------------------------------------------------------------


@pytest.mark.parametrize("kept_by", [pickle, cloudpickle], ids=["pickle", "cloudpickle"])
def test_what_was_spent_survives(kept_by):
    """Of the trial, of all trials and of the clock; the time until it is loaded is free."""
    clock, stopper = Clock(), BudgetStopper(10, 60, 1, on_end="drain")
    use_clock(stopper, clock)
    assert not stopper.stop_all()  # the clock runs
    last = result(1, 9.0)
    stopper("a", last)
    stopper("b", result(1, 3585.0))
    clock.now += 30
    copy = kept_by.loads(kept_by.dumps(stopper))
    use_clock(copy, later := Clock())
    later.now += 5000  # nobody asked yet: the sweep is still down
    assert not copy("a", last)  # a report that was seen before the crash
    after = result(2, 0.5)
    assert not copy("c", after)
    later.now += 29.0
    assert not copy("c", result(2, 0.6))
    later.now += 1.5
    told = result(3, 0.0)
    assert copy("c", told)
    assert "the sweep has run 60.5 of 60 s" in told["stop_reason"]


def test_its_state_is_small():
    """It is pickled with every snapshot of Tune."""
    stopper = BudgetStopper(1e9, 1e9, 1e9)
    empty = len(pickle.dumps(stopper))
    for number in range(100):
        stopper(f"trial_{number:05d}", result(1, 1.0, timestamp=1e9, pid=7, time_total_s=1.0))
    assert (len(pickle.dumps(stopper)) - empty) / 100 < 1024


# -- replay ----------------------------------------------------------------------------------------


def test_a_recorded_sweep_can_be_cut_at_a_budget():
    """By the recorded times of its reports: 10 seconds each."""
    rows = [
        {"trial_id": t, "training_iteration": i, "x": 1.0, "time_total_s": 10.0 * i}
        for t in "abcd"
        for i in range(1, 6)
    ]
    sweep = Sweep.from_frame(pd.DataFrame(rows), metric="x", mode="min")
    options = {"workers": 1, "order": "recorded", "cost": "seconds"}
    assert replay(sweep, stopper=BudgetStopper(20), **options).reports == 8
    killed = replay(sweep, stopper=BudgetStopper(gpu_hours=70 / 3600), **options)
    assert (killed.reports, killed.seconds) == (7, 70.0)
    drained = replay(sweep, stopper=BudgetStopper(gpu_hours=70 / 3600, on_end="drain"), **options)
    assert drained.reports == 7 + 2  # trials c and d: one report each


# -- in Ray ----------------------------------------------------------------------------------------


def ray_marked(test):
    """A test that runs Ray; in the driver, Ray still loads what it deprecates."""
    quiet = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")
    return quiet(pytest.mark.usefixtures("ray_session")(test))


def leaves_files_open(test):
    """A test whose end by `stop_all` leaves Ray's own result.json of the other trials open."""
    for name in ("ResourceWarning", "pytest.PytestUnraisableExceptionWarning"):
        test = pytest.mark.filterwarnings(f"ignore::{name}")(test)
    return test


def steps(results):
    return [r.metrics.get("step") for r in results]


def slow(config):
    """Says that each step took `seconds`, whatever the machine."""
    for step in range(1, 31):
        tune.report({"step": step, "time_this_iter_s": config["seconds"]})
        time.sleep(config.get("pause", 0))


@ray_marked
def test_a_sweep_with_a_budget_for_each_trial(tmp_path):
    """100 seconds: all 30 steps of 1, whose last report Ray shows twice, and 10 of 10."""
    journal = tmp_path / "decisions.jsonl"
    stop = BudgetStopper(100, gpu_hours=1, journal=journal)
    space = {"seconds": tune.grid_search([1.0, 10.0])}
    short, long = fit(slow, stop, tmp_path, space, max_concurrent_trials=1)
    assert steps([short, long]) == [30, 10]
    assert long.metrics["stop_reason"] == "BudgetStopper: the trial has used 100 of 100 s"
    told = [line["numbers"] for line in read_journal(journal) if line.get("step") == 9]
    assert told[-1]["gpu_hours"] == pytest.approx((30 + 90) / 3600)


@ray_marked
@leaves_files_open
def test_a_sweep_that_is_ended_by_its_gpu_hours(tmp_path):
    """After one hour of work none goes on and none is started."""
    space = {"seconds": tune.grid_search([360.0] * 4), "pause": 0.01}
    results = fit(slow, BudgetStopper(gpu_hours=1), tmp_path, space, max_concurrent_trials=2)
    reasons = [r.metrics.get("stop_reason") for r in results]
    assert reasons.count("BudgetStopper: the sweep has used 1 of 1 GPU-hours") == 1
    assert not any(steps(results)[2:])


@ray_marked
def test_a_sweep_that_drains(tmp_path):
    """One at a time: the first takes it all, each of the others ends at its first report."""
    space = {"seconds": tune.grid_search([360.0] * 3)}
    stop = BudgetStopper(gpu_hours=1, on_end="drain")
    results = fit(slow, stop, tmp_path, space, max_concurrent_trials=1)
    assert steps(results) == [10, 1, 1]


def saving(config):
    """10 seconds a step, a checkpoint at every third; fails once, after step 5."""
    start, marker = 0, Path(config["marker"]) / "failed"
    checkpoint = tune.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as folder:
            start = int((Path(folder) / "step").read_text())
    for step in range(start + 1, 31):
        metrics = {"step": step, "time_this_iter_s": 10.0}
        if step % 3:
            tune.report(metrics)
        else:
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "step").write_text(str(step))
                tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))
        if step == 5 and not marker.exists():
            marker.touch()
            raise RuntimeError("a lost node, say")


@ray_marked
def test_work_that_a_failure_lost_is_counted(tmp_path):
    """Steps 4 and 5 were done twice: step 8 is the tenth."""
    (tried,) = fit(saving, BudgetStopper(100), tmp_path, {"marker": str(tmp_path)}, max_failures=1)
    assert tried.metrics["step"] == 8
    assert tried.metrics["stop_reason"] == "BudgetStopper: the trial has used 100 of 100 s"


@ray_marked
def test_what_was_spent_survives_tuner_restore(tmp_path):
    """The sweep that failed after 50 seconds goes on with 50."""
    (broken,) = fit(saving, BudgetStopper(100), tmp_path, {"marker": str(tmp_path)})
    assert broken.error is not None
    restored = tune.Tuner.restore(str(tmp_path / "sweep"), trainable=saving, resume_errored=True)
    (after,) = list(restored.fit())
    assert after.metrics["step"] == 8
    assert after.metrics["stop_reason"] == "BudgetStopper: the trial has used 100 of 100 s"


@ray_marked
@leaves_files_open
def test_a_sweep_that_is_ended_by_the_clock(tmp_path):
    """Trials of a quarter of an hour end, though they have reported once at most."""
    space = {"seconds": tune.grid_search([1.0, 1.0]), "pause": 30.0}
    results = fit(slow, BudgetStopper(sweep_seconds=1), tmp_path, space)
    assert all((step or 0) < 30 for step in steps(results))
