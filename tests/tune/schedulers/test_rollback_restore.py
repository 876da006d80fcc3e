"""RollbackScheduler: what it knows, and does again or not, after Tuner.restore."""

import math
import pickle
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial

from tests.tune.schedulers.rollback_stage import QUICK, Stage, events, journal_files
from tune_stoppers import RollbackScheduler
from tune_stoppers.rules.rollback import WENT_BACK


def restored(stage: Stage, trials: list[Trial]) -> Stage:
    """A new driver with `trials` as Ray remembers them, and the scheduler as constructed."""
    stage.scheduler._memory.flush()
    scheduler = pickle.loads(pickle.dumps(stage.scheduler))
    again = Stage(stage.folder, scheduler)
    for trial in trials:
        trial.set_status(Trial.PENDING)
        again.take_in(trial)
    return again


def remembered(trial: Trial) -> Trial:
    """The trial as it is in a snapshot of Ray's."""
    copy = Trial("train", trial_id=trial.trial_id, config=trial.config, stub=True)
    copy.run_metadata = pickle.loads(pickle.dumps(trial.run_metadata))
    return copy


def in_trouble(tmp_path: Path, losses: list[Any]) -> tuple[Stage, Trial]:
    stage = Stage(tmp_path, RollbackScheduler(**QUICK | {"max_rollbacks": 2}))
    trial = stage.add()
    stage.start(trial)
    stage.curve(trial, losses)
    return stage, trial


def test_a_rollback_that_ray_forgot_is_done_again(tmp_path: Path) -> None:
    """Its snapshot is from before: the old rate, and a later checkpoint."""
    stage, trial = in_trouble(tmp_path, [3, 1, 2])
    snapshot = remembered(trial)
    stage.report(trial, 4, 2)
    stage.resume()
    assert stage.report(trial, 3, 2) == "CONTINUE"
    again = restored(stage, [snapshot])
    assert again.resume() == ("t", 2, {"lr": 0.5})
    assert again.report(snapshot, 3, 2) == "CONTINUE"  # a repeat: judged before the kill
    assert again.report(snapshot, 4, 2) == "STOP"
    assert len(events(again.scheduler, again)) == 1


def test_a_rollback_that_ray_remembers_is_not_done_again(tmp_path: Path) -> None:
    """Neither is the rate cut twice, nor the trial put back."""
    stage, trial = in_trouble(tmp_path, [3, 1, 2, 2])
    stage.resume()
    stage.report(trial, 3, 0.5)
    again = restored(stage, [remembered(trial)])
    assert again.resume() == ("t", 3, {"lr": 0.5})
    course = again.scheduler.record["t"]
    assert (course.rollbacks, course.watch.best, course.step) == (1, 0.5, 3)


def test_a_rollback_that_was_decided_is_done_after_the_restore(tmp_path: Path) -> None:
    """Between the decision and Ray's next choice the driver was killed."""
    stage, trial = in_trouble(tmp_path, [3, 1, 2, 2])
    again = restored(stage, [remembered(trial)])
    assert again.resume() == ("t", 2, {"lr": 0.5})
    assert again.report(again.trials[0], 3, 2) == "CONTINUE"
    assert [event for event, _ in events(again.scheduler, again)] == [WENT_BACK]


def test_killed_right_after_a_rollback(tmp_path: Path) -> None:
    """The first report after it is a fresh one, though its step was judged before."""
    stage, trial = in_trouble(tmp_path, [3, 1, 2, 2])
    stage.resume()
    again = restored(stage, [remembered(trial)])
    assert again.resume() == ("t", 2, {"lr": 0.5})
    assert again.curve(again.trials[0], [2, 2], after=2) == ["CONTINUE", "STOP"]


def test_several_rollbacks_ago(tmp_path: Path) -> None:
    """Each cut is made up for; later ones are told apart from it."""
    stage, trial = in_trouble(tmp_path, [3, 1, math.nan])
    snapshot = remembered(trial)
    snapshot.set_config({"lr": 1.0})
    stage.resume()
    stage.curve(trial, [0.5, math.nan], after=2)
    stage.resume()
    assert trial.config == {"lr": 0.25}
    again = restored(stage, [snapshot])
    assert again.resume()[2] == {"lr": 0.25}
    twice = restored(again, [remembered(again.trials[0])])
    assert twice.resume()[2] == {"lr": 0.25}
    assert twice.scheduler.record["t"].rollbacks == 2


def test_killed_before_the_new_config_was_written_down(tmp_path: Path) -> None:
    """The journal has the rollback and ends there."""
    stage, trial = in_trouble(tmp_path, [3, 1, 2])
    snapshot = remembered(trial)
    stage.report(trial, 4, 2)
    stage.resume()
    stage.scheduler._memory.flush()
    (journal,) = journal_files(stage)
    *lines, last = journal.read_text().splitlines(keepends=True)
    assert '"event": "config"' in last
    journal.write_text("".join(lines))
    again = restored(stage, [snapshot])
    assert again.resume() == ("t", 2, {"lr": 0.5})
    twice = restored(again, [remembered(again.trials[0])])
    assert twice.resume() == ("t", 2, {"lr": 0.5})
    assert twice.scheduler.record["t"].rollbacks == 1


CALLS: list[Any] = []


def change_nothing(config: dict[str, Any]) -> dict[str, Any]:
    """Go back as it is, once more."""
    CALLS.append(config)
    return config


def test_a_change_that_cannot_be_seen_is_made_once(tmp_path: Path) -> None:
    """The number of known configurations tells how many changes there were."""
    CALLS.clear()
    stage = Stage(tmp_path, RollbackScheduler(**QUICK, mutate=change_nothing))
    trial = stage.add()
    stage.start(trial)
    stage.curve(trial, [3, 1, 2, 2])
    stage.resume()
    restored(stage, [remembered(trial)]).resume()
    assert len(CALLS) == 1


def test_a_stranger_under_the_same_id_starts_clean(tmp_path: Path) -> None:
    """Ray may give an id again after a kill: another config is another trial."""
    stage, _ = in_trouble(tmp_path, [3, 1, 2, 2])
    stage.resume()
    stranger = Trial("train", trial_id="t", config={"lr": 7.0}, stub=True)
    again = restored(stage, [stranger])
    assert again.resume() == ("t", 0, {"lr": 7.0})
    assert "t" not in again.scheduler.record
