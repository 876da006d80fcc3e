"""Class trainables under the schedulers that need checkpoints: Ray saves after the report."""

from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.train._internal.session import _TrainingResult
from ray.tune import Checkpoint, CheckpointConfig
from ray.tune.experiment import Trial

from tests.stand_ins.rollback_stage import QUICK, Stage, events, journal_of
from tests.tune.schedulers.test_base import Pausing
from tune_stoppers import RollbackScheduler, RuleScheduler
from tune_stoppers.experiment.class_checkpoints import claims_in
from tune_stoppers.journal.lines import ENDED, SAVING
from tune_stoppers.rules.sweep.rollback import GONE, WENT_BACK


class Saves(tune.Trainable):  # type: ignore[misc]  # Ray's is untyped
    """A class trainable with checkpoints."""

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to save."""


class ClassStage(Stage):
    """As Ray does it with class trainables: no result names a checkpoint."""

    def report(self, trial: Trial, step: int, loss: Any, *, saves: bool = True, **more: Any) -> str:
        result = {"training_iteration": step, "loss": loss, **more}
        action = self.scheduler.on_trial_result(self, trial, dict(result))
        trial.run_metadata.last_result = result | {"done": action == "STOP"}
        if action == "PAUSE" or trial.should_checkpoint():
            self.save(trial, result)
        if action == "PAUSE":
            trial.set_status(Trial.PAUSED)
        if action == "STOP":
            self.scheduler.on_trial_complete(self, trial, result)
            trial.set_status(Trial.TERMINATED)
        return action

    def save(self, trial: Trial, result: dict[str, Any]) -> None:
        trial.storage.current_checkpoint_index += 1
        name = f"checkpoint_{trial.storage.current_checkpoint_index:06d}"
        where = self.folder / trial.trial_id / name
        where.mkdir(parents=True)
        (where / "state").write_text(str(result["loss"]))
        saved = _TrainingResult(Checkpoint(str(where)), dict(result))
        trial.run_metadata.checkpoint_manager.register_checkpoint(saved)


def staged(tmp_path: Path, **checkpoints: Any) -> tuple[ClassStage, Trial]:
    stage = ClassStage(
        tmp_path, RollbackScheduler(**QUICK), checkpoints=CheckpointConfig(**checkpoints)
    )
    trial = stage.add()
    stage.start(trial)
    return stage, trial


@pytest.mark.parametrize(("every", "back"), [(1, 3), (2, 2)])
@pytest.mark.parametrize("keep", [None, 1])
def test_a_trial_goes_back_to_the_best_that_ray_saved(
    tmp_path: Path, every: int, back: int, keep: int | None
) -> None:
    """At its lower rate, whatever Ray was told to keep; what it saves then has the next names."""
    stage, trial = staged(tmp_path, checkpoint_frequency=every, num_to_keep=keep)
    assert stage.curve(trial, [5, 2, 1, 3, 3]) == ["CONTINUE"] * 4 + ["PAUSE"]
    assert stage.resume() == ("t", back, {"lr": 0.5})
    assert [event for event, _ in events(stage.scheduler, stage)] == [WENT_BACK]
    stage.curve(trial, [0.5, 0.6, 0.7], after=back)
    assert stage.resume()[2] == {"lr": 0.25}
    assert GONE not in [event for event, _ in events(stage.scheduler, stage)]


def test_one_that_ray_never_saves_is_given_more_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And a line says what to set."""
    stage, trial = staged(tmp_path)
    assert stage.curve(trial, [1, 2, 2, 2, 2]) == ["CONTINUE"] * 4 + ["STOP"]
    assert "set checkpoint_frequency in CheckpointConfig" in caplog.text


@pytest.mark.parametrize(("cls", "action"), [(Saves, "PAUSE"), (tune.Trainable, "CONTINUE")])
def test_any_rule_may_pause_what_can_be_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cls: type, action: str
) -> None:
    """Ray saves it then; one that cannot be saved would start from zero."""
    monkeypatch.setattr(Trial, "get_trainable_cls", lambda trial: cls)
    scheduler: Any = RuleScheduler(Pausing(), metric="loss", mode="min")
    stage = ClassStage(tmp_path, scheduler)
    trial = stage.add()
    stage.start(trial)
    assert stage.report(trial, 1, 1.0) == action


def test_the_journal_knows_the_checkpoint_of_the_end(tmp_path: Path) -> None:
    """Ray saves it after the scheduler has had its last word."""
    stage, trial = staged(tmp_path, checkpoint_frequency=2, checkpoint_at_end=True)
    stage.curve(trial, [5, 4])
    result = {"training_iteration": 3, "loss": 3.0}
    stage.save(trial, result)  # the trainable said that it is done: the scheduler is not asked
    stage.scheduler.on_trial_complete(stage, trial, result)
    lines = journal_of(stage.scheduler, stage)
    claims = claims_in(lines)["t"]
    assert {name: claim[-1].iteration for name, claim in claims.items()} == {
        "checkpoint_000000": 2.0,
        "checkpoint_000001": 3.0,
    }
    assert [line["event"] for line in lines[-2:]] == [SAVING, ENDED]
