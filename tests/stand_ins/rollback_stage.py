"""A stand-in for Ray's controller, with real trials, for the tests of RollbackScheduler."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.fs
from ray.train._internal.session import _TrainingResult
from ray.tune import Checkpoint, CheckpointConfig, Stopper
from ray.tune.experiment import Trial

from tune_stoppers import RollbackScheduler
from tune_stoppers.journal.lines import Line, read_journal
from tune_stoppers.rules.sweep.rollback import GONE, WENT_BACK

QUICK: dict[str, Any] = {
    "patience": 2,
    "recovery_patience": 2,
    "metric": "loss",
    "mode": "min",
}


class Stage:
    """Ray's controller with real trials, as far as a scheduler can tell."""

    def __init__(
        self,
        folder: Path,
        scheduler: RollbackScheduler,
        *,
        stopper: Stopper | None = None,
        checkpoints: CheckpointConfig | None = None,
    ) -> None:
        self.folder, self.scheduler, self.checkpoints = folder, scheduler, checkpoints
        self._stopper = stopper
        self.trials: list[Trial] = []
        self.pausing: set[str] = set()

    def get_trials(self) -> list[Trial]:
        return self.trials

    def add(self, name: str = "t", config: dict[str, Any] | None = None) -> Trial:
        trial = Trial(
            "train",
            trial_id=name,
            config={"lr": 1.0} if config is None else config,
            checkpoint_config=self.checkpoints,
            stub=True,
        )
        return self.take_in(trial)

    def take_in(self, trial: Trial) -> Trial:
        trial.storage = SimpleNamespace(
            storage_filesystem=pyarrow.fs.LocalFileSystem(),
            experiment_fs_path=str(self.folder / "exp"),
            trial_dir_name=trial.trial_id,
            trial_fs_path=str(self.folder / trial.trial_id),
            current_checkpoint_index=-1,
            experiment_driver_staging_path="/tmp/2026-01-01/working/driver",
        )
        self.trials.append(trial)
        self.scheduler.on_trial_add(self, trial)
        return trial

    def start(self, trial: Trial) -> None:
        trial.set_status(Trial.RUNNING)

    def report(self, trial: Trial, step: int, loss: Any, *, saves: bool = True, **more: Any) -> str:
        """A report and what Ray then does; a checkpoint is registered after the scheduler."""
        name = f"checkpoint_{step:06d}" if saves else None
        result = {"training_iteration": step, "loss": loss, "checkpoint_dir_name": name, **more}
        if name is not None:  # by the trial's process, before it reports
            where = self.folder / trial.trial_id / name
            where.mkdir(parents=True, exist_ok=True)
            (where / "state").write_text(str(loss))
        action = self.scheduler.on_trial_result(self, trial, result)
        if name is not None:
            trial.run_metadata.checkpoint_manager.register_checkpoint(
                _TrainingResult(Checkpoint(str(where)), dict(result))
            )
        if action == "PAUSE":
            trial.set_status(Trial.PAUSED)
        if action == "STOP":
            trial.run_metadata.last_result = result
            self.scheduler.on_trial_complete(self, trial, result)
            trial.set_status(Trial.TERMINATED)
        return action

    def curve(self, trial: Trial, losses: list[Any], *, after: int = 0, saves: bool = True) -> Any:
        return [
            self.report(trial, step, loss, saves=saves)
            for step, loss in enumerate(losses, start=after + 1)
        ]

    def resume(self) -> tuple[str, int, dict[str, Any]]:
        """Who is chosen, from which step it goes on, and with which configuration."""
        trial = self.scheduler.choose_trial_to_run(self)
        trial.set_status(Trial.RUNNING)
        latest = trial.latest_checkpoint_result
        step = 0 if latest is None else latest.metrics["training_iteration"]
        return trial.trial_id, step, trial.config


def journal_files(stage: Stage) -> list[Path]:
    return sorted(stage.folder.glob("exp/tune_stoppers/*/journal-*.jsonl"))


def journal_of(scheduler: RollbackScheduler, stage: Stage) -> list[Line]:
    scheduler._memory.flush()
    return [line for file in journal_files(stage) for line in read_journal(file)]


def events(scheduler: RollbackScheduler, stage: Stage) -> list[tuple[str, dict[str, Any]]]:
    """What was done, with its numbers."""
    lines = journal_of(scheduler, stage)
    return [(x["event"], x["numbers"]) for x in lines if x.get("event") in (WENT_BACK, GONE)]
