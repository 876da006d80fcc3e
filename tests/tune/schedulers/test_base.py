"""What every scheduler of ours does: users' requests, the end of the sweep, its memory."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.fs
import pytest
from ray import cloudpickle
from ray.tune.experiment import Trial

import tune_stoppers as ts
from tune_stoppers import rules
from tune_stoppers.journal.layout import request_text
from tune_stoppers.journal.lines import AGAIN, read_journal


class StandIn:
    """A trial, on storage that is real."""

    def __init__(self, folder: Path, number: int, status: str = Trial.RUNNING, **config: Any):
        self.trial_id, self.status = f"t{number}", status
        self.config = {"number": number} | config
        self.last_result: dict[str, Any] = {}
        self.is_saving = False
        self.storage = SimpleNamespace(
            storage_filesystem=pyarrow.fs.LocalFileSystem(),
            experiment_fs_path=str(folder / "exp"),
            experiment_driver_staging_path=str(folder / "born-1" / "exp" / "driver_artifacts"),
            trial_dir_name=None,
        )

    def init_local_path(self) -> None:
        pass

    def is_finished(self) -> bool:
        return self.status in (Trial.TERMINATED, Trial.ERROR)


class Controller:
    """As much of Ray's controller as a scheduler may touch."""

    def __init__(self, *trials: StandIn) -> None:
        self.trials = list(trials)
        self.stopped: list[str] = []
        self.finished = False
        self.search_alg = SimpleNamespace(set_finished=self._finish, is_finished=lambda: False)

    def _finish(self) -> None:
        self.finished = True

    def get_trials(self) -> list[StandIn]:
        return self.trials

    def stop_trial(self, trial: StandIn) -> None:
        self.stopped.append(trial.trial_id)


def started(scheduler: Any, *trials: StandIn) -> Controller:
    """A controller that has added `trials`."""
    controller = Controller(*trials)
    for trial in trials:
        scheduler.on_trial_add(controller, trial)
    return controller


def report(
    scheduler: Any, controller: Controller, trial: StandIn, step: int, loss: float, **more: Any
) -> str:
    result = {"training_iteration": step, "loss": loss, "config": trial.config} | more
    trial.last_result = result
    return scheduler.on_trial_result(controller, trial, result)


def bound(max_t: int = 27) -> ts.BoundASHAScheduler:
    return ts.BoundASHAScheduler(max_t, 3, metric="loss", mode="min")


def restored(scheduler: Any) -> Any:
    """What a new process gets: the scheduler as Tune pickled it when it was made."""
    scheduler._memory.flush()
    return cloudpickle.loads(cloudpickle.dumps(scheduler))


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [
        line
        for path in sorted((folder / "exp" / "tune_stoppers").glob("*-*/journal-*.jsonl"))
        for line in read_journal(path)
    ]


def test_restored_scheduler_knows_every_rung(tmp_path: Path) -> None:
    """The fourth trial is judged against the three of the process that was killed."""
    trials = [StandIn(tmp_path, n) for n in range(4)]
    first = bound()
    controller = started(first, *trials)
    for trial, loss in zip(trials, (1.0, 2.0, 3.0), strict=False):
        report(first, controller, trial, 3, loss)
    second = restored(first)
    again = started(second, *trials)
    assert report(second, again, trials[3], 3, 2.5) == "STOP"
    assert "rank 3 of 4 at rung 3" in second.explain("t3")


def test_repeated_reports_change_nothing(tmp_path: Path) -> None:
    """A trial that Tune restores from further back goes on, and its records stay as they were."""
    trial, peer = StandIn(tmp_path, 0), StandIn(tmp_path, 1)
    first = bound()
    controller = started(first, trial, peer)
    for step in range(1, 8):
        report(first, controller, trial, step, 10.0 - step)
    before = first.rule.dump(first.record)
    second = restored(first)
    again = started(second, trial, peer)
    for step in range(2, 8):
        assert report(second, again, trial, step, math.nan) == "CONTINUE"
    assert str(second.rule.dump(second.record)) == str(before)
    second._memory.flush()
    steps = [line["step"] for line in lines_of(tmp_path) if "action" in line]
    assert steps == [1, 2, 3, 4, 5, 6, 7]


def test_what_is_repeated_with_a_checkpoint_is_noted(tmp_path: Path) -> None:
    """Whose it is now: the folder may have held something else. Ray's clocks go with a name."""
    trial, first = StandIn(tmp_path, 0), bound()
    controller = started(first, trial)
    for step in range(1, 5):
        report(first, controller, trial, step, 1.0, checkpoint_dir_name=f"c{step}")
    second = restored(first)
    again = started(second, trial)
    report(second, again, trial, 2, 9.0)
    report(second, again, trial, 3, 8.0, checkpoint_dir_name="c2", time_total_s=0.5)
    report(second, again, trial, 4, math.nan, checkpoint_dir_name="c3")
    report(second, again, trial, 5, 6.0, checkpoint_dir_name="c4", timesteps_total=None)
    second._memory.flush()
    lines = lines_of(tmp_path)
    keys = ("trial", "step", "value", "checkpoint", "clocks")
    noted = [tuple(line[key] for key in keys) for line in lines if line.get("event") == AGAIN]
    assert noted == [
        ("t0", 3, 8.0, "c2", {"training_iteration": 3, "time_total_s": 0.5}),
        ("t0", 4, "nan", "c3", {"training_iteration": 4}),
    ]
    assert lines[-1]["clocks"] == {"training_iteration": 5}


def test_what_ray_had_still_to_do_at_a_kill_is_dropped(tmp_path: Path) -> None:
    """Else a restored trial is paused at its first checkpoint, and a promotion waits for it."""
    trial, scheduler = StandIn(tmp_path, 0), bound()
    controller = Controller(trial)
    controller._cached_trial_decisions = {"t0": "PAUSE", "t1": "STOP"}
    scheduler.on_trial_add(controller, trial)
    assert controller._cached_trial_decisions == {"t1": "STOP"}


def test_same_id_with_another_configuration_is_another_trial(tmp_path: Path) -> None:
    """What was recorded under an id that came back with another configuration is dropped."""
    first = bound()
    old = StandIn(tmp_path, 0, lr=0.1)
    report(first, started(first, old), old, 3, 0.5)
    second = restored(first)
    new = StandIn(tmp_path, 0, lr=0.2)
    report(second, started(second, new), new, 1, 9.0)
    assert second.record.rungs[0].of_trial == {}
    assert second.record.incumbent.loss == 9.0


def test_trials_that_never_were_are_forgotten(tmp_path: Path) -> None:
    """A trial that Tune does not restore leaves no entry and is not the incumbent."""
    first = bound()
    gone, kept = StandIn(tmp_path, 0), StandIn(tmp_path, 1)
    controller = started(first, gone, kept)
    report(first, controller, gone, 3, 0.1)
    report(first, controller, kept, 3, 2.0)
    second = restored(first)
    second.choose_trial_to_run(started(second, kept))
    assert second.record.rungs[0].of_trial == {"t1": 2.0}
    assert second.record.incumbent.trial_id == "t1"


def test_a_sweep_that_begins_anew_is_not_forgotten_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Ray could not read its snapshot: none of the trials is there again. If some are, all is well.

    With another birth, too, which Ray gives where not even the trials could be read.
    """
    first = bound()
    old, new = [StandIn(tmp_path, n) for n in (0, 1)], StandIn(tmp_path, 2)
    controller = started(first, *old)
    for trial in old:
        report(first, controller, trial, 3, 1.0)
    first._memory.flush()
    well = restored(first)
    well.choose_trial_to_run(started(well, old[0], new))
    assert not caplog.messages
    anew = restored(first)
    anew.choose_trial_to_run(started(anew, StandIn(tmp_path, 3)))
    assert "anew" in caplog.messages[0]
    assert "the trials judged before (1) are forgotten" in caplog.messages[0]
    assert len(caplog.messages) == 1
    reborn = StandIn(tmp_path, 4)
    staging = str(tmp_path / "born-2" / "exp" / "driver_artifacts")
    reborn.storage.experiment_driver_staging_path = staging
    started(restored(first), reborn)
    assert "anew" in caplog.messages[1]
    caplog.clear()
    started(bound(), reborn)
    assert not caplog.messages, "another scheduler never knew them"


def test_trial_that_ended_unseen_is_recorded(tmp_path: Path) -> None:
    """The last report of a trial that ended between the last line and the kill still counts."""
    first = bound()
    trial = StandIn(tmp_path, 0)
    report(first, started(first, trial), trial, 2, 5.0)
    second = restored(first)
    trial.status = Trial.TERMINATED
    trial.last_result = {"training_iteration": 3, "loss": 4.0}
    started(second, trial)
    assert second.record.rungs[0].of_trial == {"t0": 4.0}


def test_new_experiment_under_an_old_name_starts_clean(tmp_path: Path) -> None:
    """Another birth, or another scheduler, is another run."""
    first = bound()
    trial = StandIn(tmp_path, 0)
    report(first, started(first, trial), trial, 3, 0.5)
    second = restored(first)
    reborn = StandIn(tmp_path, 0)
    reborn.storage.experiment_driver_staging_path = str(tmp_path / "born-2/exp/driver_artifacts")
    started(second, reborn)
    assert second.record.bests == {}
    other = bound()
    started(other, trial)
    assert other.record.bests == {}


def test_user_can_stop_a_trial(tmp_path: Path) -> None:
    """A request on storage stops the trial at its next report, is logged, and is cleared away."""
    trial = StandIn(tmp_path, 0)
    scheduler = bound()
    controller = started(scheduler, trial)
    assert report(scheduler, controller, trial, 1, 1.0) == "CONTINUE"
    folder = tmp_path / "exp" / "tune_stoppers" / "requests"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "t0.json").write_text(request_text("looks wrong"))
    scheduler._memory._recorder._look_for_requests()
    assert report(scheduler, controller, trial, 2, 0.9) == "STOP"
    scheduler.on_trial_complete(controller, trial, trial.last_result)
    assert trial.last_result["stop_reason"] == "user: looks wrong"
    scheduler._memory._recorder._look_for_requests()
    assert not list(folder.iterdir())
    scheduler._memory.flush()
    assert any(line.get("event") == "user" for line in lines_of(tmp_path))


def test_the_reason_of_a_stop_outlives_a_kill(tmp_path: Path) -> None:
    """Whether Ray has forgotten it, or the end, or the trial returns with nothing more to say."""
    trials = [StandIn(tmp_path, n) for n in range(4)]
    first = bound()
    controller = started(first, *trials)
    for trial, loss in zip(trials, (1.0, 2.0, 3.0, 4.0), strict=True):
        decided = report(first, controller, trial, 3, loss)
    assert decided == "STOP"
    lost = {"training_iteration": 3, "loss": 4.0}
    ended, running = (StandIn(tmp_path, 3, s) for s in (Trial.TERMINATED, Trial.PENDING))
    for trial in (ended, running):
        trial.last_result = dict(lost)
        second = restored(first)
        controller = started(second, *trials[:3], trial)
        if trial is running:
            second.on_trial_complete(controller, trial, trial.last_result)
        assert "rank 4 of 4 at rung 3" in trial.last_result["stop_reason"]
    assert "stop_reason" not in trials[0].last_result


def test_the_journal_says_how_many_trials_are_planned(tmp_path: Path) -> None:
    """Where Ray's search knows it."""
    scheduler, trial = bound(), StandIn(tmp_path, 0)
    controller = Controller(trial)
    controller.search_alg.total_samples = 60
    scheduler.on_trial_add(controller, trial)
    scheduler._memory.flush()
    assert lines_of(tmp_path)[0]["planned"] == 60


def test_trial_that_reached_the_target_ends_the_search(tmp_path: Path) -> None:
    """With scope="sweep" nothing more is started, and the others stop at their next report."""
    rule = rules.Threshold(0.5, scope="sweep")
    scheduler = ts.RuleScheduler(rule, metric="loss", mode="min")
    running, other = StandIn(tmp_path, 0), StandIn(tmp_path, 1)
    waiting = StandIn(tmp_path, 2, Trial.PENDING)
    controller = started(scheduler, running, other, waiting)
    assert report(scheduler, controller, running, 1, 0.4) == "STOP"
    assert controller.finished
    assert controller.stopped == ["t2"]
    assert report(scheduler, controller, other, 1, 9.0) == "STOP"


@pytest.mark.parametrize("on_end", ["kill", "drain"])
def test_spent_budget_ends_the_search(tmp_path: Path, on_end: Any) -> None:
    """A budget of the sweep, under a scheduler: nothing more is started, what runs ends."""
    rule = rules.Budget(gpu_hours=1.0, on_end=on_end)
    scheduler = ts.RuleScheduler(rule)
    running, other = StandIn(tmp_path, 0), StandIn(tmp_path, 1)
    waiting = StandIn(tmp_path, 2, Trial.PENDING)
    controller = started(scheduler, running, other, waiting)
    assert report(scheduler, controller, running, 1, 0.4, time_this_iter_s=3000.0) == "CONTINUE"
    assert report(scheduler, controller, other, 1, 0.4, time_this_iter_s=700.0) == "STOP"
    assert controller.finished
    assert controller.stopped == ["t2"]
    assert report(scheduler, controller, running, 2, 0.4, time_this_iter_s=1.0) == "STOP"


def test_spent_time_survives_a_restore(tmp_path: Path) -> None:
    """What was spent before the kill counts after it, once."""
    scheduler = ts.RuleScheduler(rules.Budget(gpu_hours=1.0))
    trial = StandIn(tmp_path, 0)
    controller = started(scheduler, trial)
    assert report(scheduler, controller, trial, 1, 0.4, time_this_iter_s=3000.0) == "CONTINUE"
    second = restored(scheduler)
    again = started(second, trial)
    assert report(second, again, trial, 2, 0.4, time_this_iter_s=500.0) == "CONTINUE"
    assert report(second, again, trial, 3, 0.4, time_this_iter_s=200.0) == "STOP"


def test_pause_needs_a_checkpoint(tmp_path: Path) -> None:
    """A rule's PAUSE is carried out where the report came with a checkpoint, else not."""
    scheduler = ts.RuleScheduler(Pausing(), metric="loss", mode="min")
    trial = StandIn(tmp_path, 0)
    controller = started(scheduler, trial)
    assert report(scheduler, controller, trial, 1, 1.0) == "CONTINUE"
    saved = {"checkpoint_dir_name": "checkpoint_000000"}
    assert report(scheduler, controller, trial, 2, 1.0, **saved) == "PAUSE"


class Pausing(rules.Patience):
    """Asks for a pause at every report."""

    def decide(self, own: Any) -> Any:
        from tune_stoppers.core import Action, Decision

        return Decision(Action.PAUSE, "others first", "Pausing")


def test_unknown_keyword_is_named() -> None:
    """A misspelt keyword says what is taken."""
    with pytest.raises(TypeError, match=r"BoundASHAScheduler has no parameter 'modus'.*mode"):
        ts.BoundASHAScheduler(9, modus="min")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="RuleScheduler needs a rule"):
        ts.RuleScheduler(3)  # type: ignore[arg-type]


def test_request_that_came_too_late_is_cleared_away(tmp_path: Path) -> None:
    """A trial that has ended needs no stopping, and is not looked for ever after."""
    trial = StandIn(tmp_path, 0)
    scheduler = bound()
    controller = started(scheduler, trial)
    report(scheduler, controller, trial, 1, 1.0)
    scheduler._memory._recorder.requested["t0"] = "too late"
    scheduler.on_trial_complete(controller, trial, trial.last_result)
    assert scheduler._memory.requested == {}


def test_a_scheduler_is_told_of_all_that_may_change_who_is_next(tmp_path: Path) -> None:
    """Trials that come, leave, or are about to be stopped; not of a report that changes nothing."""
    told: list[str] = []

    class Told(ts.RuleScheduler):
        def on_change(self) -> None:
            told.append("change")

    scheduler = Told(rules.Threshold(0.5), metric="loss", mode="min")
    trials = [StandIn(tmp_path, n) for n in range(4)]
    controller = started(scheduler, *trials)
    assert len(told) == 4
    assert report(scheduler, controller, trials[0], 1, 1.0) == "CONTINUE"
    assert len(told) == 4
    assert report(scheduler, controller, trials[0], 2, 0.4) == "STOP"
    assert len(told) == 5
    scheduler.on_trial_complete(controller, trials[0], trials[0].last_result)
    assert len(told) == 6
    scheduler.on_trial_error(controller, trials[1])
    assert len(told) == 7
    scheduler.on_trial_remove(controller, trials[2])
    assert len(told) == 8
