"""The cluster in virtual time: when things happen, and who is told."""

import copy
import math

import pandas as pd
import pytest
from ray.tune.schedulers import FIFOScheduler, HyperBandScheduler, TrialScheduler
from ray.tune.stopper import Stopper

from tune_stoppers.backtest.cluster import Cluster, StalledError
from tune_stoppers.backtest.process import Costs, Faults
from tune_stoppers.recorded.sweep import Sweep


def sweep(*lengths: int, seconds: float | None = None) -> Sweep:
    """Trials "0", "1", … of the given lengths; loss = number + 1/iteration."""
    rows = [
        {"trial_id": str(n), "training_iteration": i, "loss": n + 1 / i, "a/b": 1.0}
        | ({} if seconds is None else {"time_total_s": seconds * i})
        for n, length in enumerate(lengths)
        for i in range(1, length + 1)
    ]
    return Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min")


class Scripted(FIFOScheduler):
    """FIFO that does as told at (trial, iteration), the first time, and notes all calls."""

    def __init__(self, script: dict[tuple[str, int], object] | None = None) -> None:
        super().__init__()
        self.script = dict(script or {})
        self.calls: list[tuple] = []

    def on_trial_add(self, controller, trial):
        self.calls.append(("add", trial.trial_id, trial.status))

    def on_trial_result(self, controller, trial, result):
        iteration = result["training_iteration"]
        self.calls.append(("result", trial.trial_id, iteration))
        act = self.script.pop((trial.trial_id, iteration), TrialScheduler.CONTINUE)
        return act(controller, trial) if callable(act) else act

    def on_trial_complete(self, controller, trial, result):
        self.calls.append(("complete", trial.trial_id, result["training_iteration"]))

    def on_trial_remove(self, controller, trial):
        self.calls.append(("remove", trial.trial_id, trial.status))

    def on_trial_error(self, controller, trial):
        self.calls.append(("error", trial.trial_id, trial.status))


def run(recorded: Sweep, scheduler: TrialScheduler | None = None, **options) -> Cluster:
    cluster = Cluster(recorded.curves, scheduler or FIFOScheduler(), **options)
    cluster.run()
    return cluster


def timeline(cluster: Cluster) -> list[tuple[float, str, int]]:
    return [(time, trial.trial_id, row + 1) for time, trial, row in cluster.log]


def actions(cluster: Cluster) -> list[tuple[float, str, str]]:
    return [(entry.time, entry.trial_id, entry.action) for entry in cluster.journal]


def test_two_workers_share_three_trials():
    """A report comes when its time is due; a trial that ends leaves its worker to the next."""
    cluster = run(sweep(2, 1, 2), workers=2)
    assert timeline(cluster) == [
        (1.0, "0", 1),
        (1.0, "1", 1),
        (2.0, "0", 2),
        (2.0, "2", 1),
        (3.0, "2", 2),
    ]
    assert cluster.busy == 5.0


def test_reports_take_their_recorded_seconds():
    """With unit "seconds" the clock follows the record."""
    cluster = run(sweep(2, 2, seconds=2.5), workers=1, costs=Costs("seconds"))
    assert [time for time, _, _ in timeline(cluster)] == [2.5, 5.0, 7.5, 10.0]


def test_starts_saves_and_restores_cost_worker_time():
    """start 10, each report 1 + save 0.5; after the pause start 10 and load 3."""
    costs = Costs(start=10.0, save=0.5, load=3.0)
    cluster = run(sweep(2), Scripted({("0", 1): "PAUSE"}), workers=1, costs=costs)
    assert timeline(cluster) == [(11.5, "0", 1), (26.0, "0", 2)]
    resumed = Costs(start=10.0, save=0.5, load=3.0, resume=1.0)
    cluster = run(sweep(2), Scripted({("0", 1): "PAUSE"}), workers=1, costs=resumed)
    assert timeline(cluster) == [(11.5, "0", 1), (14.0, "0", 2)]


@pytest.mark.parametrize(
    ("every", "reported", "came_back"),
    [
        (1, [1, 2, 3, 4], "resume"),
        (2, [1, 2, 3, 3, 4], "resume"),
        (0, [1, 2, 3, 1, 2, 3, 4], "restart"),
    ],
)
def test_a_paused_trial_goes_on_from_its_last_checkpoint(every, reported, came_back):
    """Without one it starts from zero; rows since the checkpoint are reported again."""
    cluster = run(sweep(4), Scripted({("0", 3): "PAUSE"}), workers=1, checkpoint_every=every)
    assert [iteration for _, _, iteration in timeline(cluster)] == reported
    assert [action for _, _, action in actions(cluster)] == ["start", "pause", came_back, "finish"]


@pytest.mark.parametrize(("every", "reported"), [(1, [1, 2, 3]), (0, [1, 2, 1, 2, 3])])
def test_pausing_another_trial_takes_effect_after_its_report(every, reported):
    """The report under way still arrives, and its checkpoint is the one that is resumed."""

    def pause_first(controller, trial):
        controller.pause_trial(next(t for t in controller.get_trials() if t.trial_id == "0"))
        return TrialScheduler.CONTINUE

    scheduler = Scripted({("1", 1): pause_first})
    cluster = run(sweep(3, 3), scheduler, workers=2, checkpoint_every=every)
    assert (2.0, "0", "pause") in actions(cluster)
    assert [i for _, trial, i in timeline(cluster) if trial == "0"] == reported


def test_a_paused_trial_can_be_put_back_on_an_older_checkpoint():
    """As a rollback does it in Ray: by name, among the trial's checkpoints, while it is PAUSED."""

    class Back(Scripted):
        def choose_trial_to_run(self, controller):
            for trial in controller.get_trials():
                manager = trial.run_metadata.checkpoint_manager
                if trial.status == trial.PAUSED:
                    kept = manager.best_checkpoint_results
                    hit = next(r for r in kept if r.checkpoint.path.endswith("checkpoint_000000"))
                    manager._latest_checkpoint_result = copy.copy(hit)
            return super().choose_trial_to_run(controller)

    cluster = run(sweep(4), Back({("0", 3): "PAUSE"}), workers=1)
    assert [iteration for _, _, iteration in timeline(cluster)] == [1, 2, 3, 2, 3, 4]


def test_stopping_other_trials_tells_the_scheduler_what_they_were():
    """A running trial completes with its last result; a pending one is removed."""

    def stop_others(controller, trial):
        for other in list(controller.get_trials()):
            if other is not trial:
                controller.stop_trial(other)
        return TrialScheduler.CONTINUE

    scheduler = Scripted({("1", 2): stop_others})
    cluster = run(sweep(3, 3, 3), scheduler, workers=2)
    assert ("complete", "0", 2) in scheduler.calls
    assert ("remove", "2", "PENDING") in scheduler.calls
    assert cluster.ended_by == {"0": "scheduler", "2": "scheduler", "1": "trial"}


def test_held_trials_start_in_the_order_of_the_scheduler():
    """Trials set to PAUSED when they are added wait until they are chosen."""

    class LastFirst(Scripted):
        def on_trial_add(self, controller, trial):
            trial.set_status(trial.PAUSED)

        def choose_trial_to_run(self, controller):
            trials = controller.get_trials()
            if any(t.status in ("PENDING", "RUNNING") for t in trials):
                return None
            return next((t for t in reversed(trials) if t.status == "PAUSED"), None)

    cluster = run(sweep(1, 1, 1), LastFirst(), workers=2)
    assert [trial for _, trial, _ in timeline(cluster)] == ["2", "1", "0"]


def test_pending_trials_start_whatever_the_scheduler_chooses():
    """A scheduler that never chooses anything holds nothing back."""

    class Mute(FIFOScheduler):
        def choose_trial_to_run(self, controller):
            return None

    assert len(run(sweep(2, 2, 2), Mute(), workers=1).log) == 6


@pytest.mark.parametrize(("max_pending", "known"), [(None, 4), (1, 2)])
def test_trials_are_taken_ahead_of_time_up_to_the_limit(max_pending, known):
    """Ray takes all recorded trials at once; from an adaptive searcher only the next one."""
    scheduler = Scripted()
    run(sweep(1, 1, 1, 1), scheduler, workers=1, max_pending=max_pending)
    first_result = next(i for i, call in enumerate(scheduler.calls) if call[0] == "result")
    assert len([call for call in scheduler.calls[:first_result] if call[0] == "add"]) == known


class Noting(Stopper):
    """Notes what it is shown; stops a trial, or everything, at a given report."""

    def __init__(self, stop: tuple[str, int] | None = None, end: int | None = None) -> None:
        self.stop, self.end, self.shown = stop, end, []

    def __call__(self, trial_id, result):
        shown = (trial_id, result["training_iteration"], result["done"])
        self.shown.append((*shown, result["a"]["b"]))
        return shown[:2] == self.stop

    def stop_all(self):
        return self.end is not None and len(self.shown) >= self.end


def test_a_stopper_hides_its_report_and_sees_the_last_one_twice():
    """Its STOP reaches the scheduler as completion only; a trial's last result comes again, done,
    to the stopper alone."""
    scheduler, stopper = Scripted(), Noting(stop=("0", 2))
    cluster = run(sweep(3, 1), scheduler, stopper=stopper, workers=1)
    assert stopper.shown == [
        ("0", 1, False, 1.0),
        ("0", 2, False, 1.0),
        ("1", 1, False, 1.0),
        ("1", 1, True, 1.0),
    ]
    assert scheduler.calls[2:] == [
        ("result", "0", 1),
        ("complete", "0", 2),
        ("result", "1", 1),
        ("complete", "1", 1),
    ]
    assert cluster.ended_by == {"0": "stopper", "1": "trial"}


def test_stop_all_ends_every_trial_without_telling_the_scheduler():
    """As in Ray: running and pending trials are TERMINATED, no hook is called."""
    scheduler = Scripted()
    cluster = run(sweep(3, 3, 3), scheduler, stopper=Noting(end=2), workers=2)
    assert {trial.status for trial in cluster.trials} == {"TERMINATED"}
    assert set(cluster.ended_by.values()) == {"stop_all"}
    assert not [call for call in scheduler.calls if call[0] in ("complete", "remove")]
    cluster = run(sweep(3, 3, 3), stopper=Noting(end=2), workers=1, max_pending=1)
    assert cluster.ended_by == {"0": "stop_all", "1": "stop_all"}  # the third never came out


def test_failed_trials_are_retried_from_their_checkpoint_then_given_up():
    """Each failure is told as an error; within `max_failures` the trial is added again."""
    scheduler = Scripted()
    faults = Faults(failure_rate=0.3, max_failures=2, seed=3)
    cluster = run(sweep(*[8] * 6), scheduler, workers=2, faults=faults)
    kinds = [action for _, _, action in actions(cluster)]
    assert kinds.count("fail") == sum(t.status == "ERROR" for t in cluster.trials) > 0
    assert all(t.num_failures == 3 for t in cluster.trials if t.status == "ERROR")
    assert kinds.count("retry") == sum(min(t.num_failures, 2) for t in cluster.trials)
    added = [call for call in scheduler.calls if call[0] == "add"]
    assert len(added) == 6 + kinds.count("retry")
    for trial in cluster.trials:  # every report once: nothing was lost
        assert trial.reported == list(range(len(trial.reported)))


def test_preemptions_do_not_count_as_failures():
    """With no retries allowed every trial still runs its course."""
    cluster = run(sweep(8, 8), workers=2, faults=Faults(preemption_rate=0.3, seed=1))
    assert [action for _, _, action in actions(cluster)].count("retry") > 0
    assert {trial.status for trial in cluster.trials} == {"TERMINATED"}
    assert {trial.num_failures for trial in cluster.trials} == {0}


def test_a_sweep_that_would_hang_in_ray_is_an_error():
    """Ray's HyperBand waits for ever when trials end before their rung: seen in Ray itself."""
    recorded = sweep(9, 9, 7, 9, 5, 9)
    hyperband = HyperBandScheduler(max_t=9, metric="loss", mode="min")
    with pytest.raises(StalledError, match=r"hangs at .*HyperBandScheduler.*PAUSED"):
        run(recorded, hyperband, workers=1)


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        ("HALT", ValueError, "decided 'HALT' for trial '0'"),
        (
            lambda controller, trial: (
                controller.pause_trial(trial, should_checkpoint=False) or "CONTINUE"
            ),
            RuntimeError,
            "continue after it had paused",
        ),
    ],
)
def test_what_breaks_ray_breaks_the_replay(act, error, message):
    """Impossible decisions are named, with the scheduler and the trial."""
    with pytest.raises(error, match=message):
        run(sweep(2), Scripted({("0", 1): act}), workers=1)


def test_the_wrong_way_to_hold_a_trial_fails_as_in_ray():
    """A new trial is not yet in the controller's books: its setter refuses."""

    class Wrong(Scripted):
        def on_trial_add(self, controller, trial):
            controller._set_trial_status(trial, trial.PAUSED)

    with pytest.raises(AssertionError, match=r"use trial\.set_status"):
        run(sweep(2), Wrong(), workers=1)


def test_one_turn_of_the_loop_is_one_event():
    """The clock stands still until an event is due, and never passes the limit."""
    cluster = Cluster(sweep(2).curves, FIFOScheduler(), workers=1, checkpoint_every=0)
    assert cluster.step()
    assert (cluster.now, len(cluster.log)) == (0.0, 0)  # the start
    assert cluster.step()
    assert (cluster.now, len(cluster.log)) == (1.0, 1)
    assert not cluster.step(until=1.5)
    assert (cluster.now, len(cluster.log), cluster.busy) == (1.5, 1, 1.5)
    cluster.run(until=math.inf)
    assert (cluster.now, cluster.busy) == (2.0, 2.0)
