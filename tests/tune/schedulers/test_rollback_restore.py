"""RollbackScheduler: what it knows, and does again or not, after Tuner.restore."""

import math
import os
import pickle
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.tune.experiment import Trial

from tests.stand_ins.rollback_stage import (
    QUICK,
    Stage,
    events,
    journal_files,
)
from tune_stoppers import RollbackScheduler
from tune_stoppers.journal.lines import AGAIN, as_text, event_line
from tune_stoppers.rules.sweep.rollback import GONE, WENT_BACK


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


# -- Ray's snapshot is older than the best checkpoint -------------------------------------------


def forgotten(tmp_path: Path, *, decided: bool = False) -> tuple[Stage, Trial]:
    """Killed after a rollback, or just before, to step 3; and the trial as Ray knows it: step 1."""
    stage, trial = in_trouble(tmp_path, [5])
    snapshot = remembered(trial)
    for step, loss in enumerate([3, 1, 2, 2], start=2):
        stage.report(trial, step, loss, time_total_s=10.0 * step)
    if not decided:
        stage.resume()
    return stage, snapshot


@pytest.mark.parametrize("decided", [True, False])
def test_a_best_that_ray_forgot_is_found(tmp_path: Path, decided: bool) -> None:
    """With the clocks that Ray takes from it; once it is told, Ray knows it."""
    stage, snapshot = forgotten(tmp_path, decided=decided)
    again = restored(stage, [snapshot])
    assert again.resume() == ("t", 3, {"lr": 0.5})
    latest = snapshot.latest_checkpoint_result
    assert latest is not None
    assert latest.checkpoint.path == str(tmp_path / "t" / "checkpoint_000003")
    assert (latest.metrics["loss"], latest.metrics["time_total_s"]) == (1, 30.0)
    assert [event for event, _ in events(again.scheduler, again)] == [WENT_BACK]
    again.curve(snapshot, [0.5, 2, 2], after=3)
    assert again.resume() == ("t", 4, {"lr": 0.25})


def test_a_best_that_ray_forgot_is_written_over_by_nobody(tmp_path: Path) -> None:
    """Ray forgot how many folders there are as well."""
    stage, snapshot = forgotten(tmp_path)
    restored(stage, [snapshot])
    assert snapshot.storage.current_checkpoint_index == 5


def test_a_best_that_ray_forgot_is_gone_back_to_later(tmp_path: Path) -> None:
    """Nothing was due at the kill; the trial saves less often than it did, and gets in trouble."""
    stage, trial = in_trouble(tmp_path, [5])
    snapshot = remembered(trial)
    stage.curve(trial, [3, 1], after=1)
    again = restored(stage, [snapshot])
    assert again.resume() == ("t", 1, {"lr": 1.0})
    again.curve(snapshot, [3, 1], after=1, saves=False)
    assert again.curve(snapshot, [2, 2], after=3) == ["CONTINUE", "PAUSE"]
    assert again.resume() == ("t", 3, {"lr": 0.5})


@pytest.mark.parametrize("decided", [True, False])
def test_a_class_trainable_is_saved_after_its_report(tmp_path: Path, decided: bool) -> None:
    """By Ray, and that may take long: its files are newer than the line of the report."""
    stage, snapshot = forgotten(tmp_path, decided=decided)
    os.utime(tmp_path / "t" / "checkpoint_000003" / "state", (time.time() + 60,) * 2)
    snapshot.run_metadata.checkpoint_manager.checkpoint_config.checkpoint_frequency = 1
    assert restored(stage, [snapshot]).resume() == ("t", 3, {"lr": 0.5})


def removed(checkpoint: Path, journal: Path) -> None:
    """By Ray, or by hand."""
    shutil.rmtree(checkpoint)


def written_over(checkpoint: Path, journal: Path) -> None:
    """By a trial that was killed before its report came."""
    os.utime(checkpoint / "state", (time.time() + 60,) * 2)


def named_again(checkpoint: Path, journal: Path) -> None:
    """After an earlier restore a report at another step came with a checkpoint of this name."""
    line = event_line("", "t", AGAIN, step=2.0, value=3.0, checkpoint=checkpoint.name)
    with journal.open("a") as file:
        file.write(as_text(line))


def without_clocks(checkpoint: Path, journal: Path) -> None:
    """An older version did not keep them, and Ray would count from zero."""
    journal.write_text(re.sub(r', "clocks": {[^}]*}', "", journal.read_text()))


@pytest.mark.parametrize("decided", [True, False])
@pytest.mark.parametrize("happened", [removed, written_over, named_again, without_clocks])
def test_what_is_no_longer_the_best_is_not_taken_for_it(
    tmp_path: Path, happened: Callable[[Path, Path], None], decided: bool
) -> None:
    """The trial goes on from what Ray knows, and the journal says so."""
    stage, snapshot = forgotten(tmp_path, decided=decided)
    stage.scheduler._memory.flush()
    (journal,) = journal_files(stage)
    happened(tmp_path / "t" / "checkpoint_000003", journal)
    again = restored(stage, [snapshot])
    assert again.resume() == ("t", 1, {"lr": 1.0 if decided else 0.5})
    assert events(again.scheduler, again)[-1] == (GONE, {"checkpoint": "checkpoint_000003"})
    actions = again.curve(snapshot, [3, 2, 2, 2, 2, 2], after=1)
    assert set(actions) <= {"CONTINUE", "STOP"}
