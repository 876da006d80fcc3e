"""A stand-in for Ray's controller, for schedulers that hold trials back and pause them."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.fs
from ray.tune.search import SearchGenerator
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.searcher import Searcher


class StandInTrial(SimpleNamespace):
    """What the scheduler asks of a trial."""

    def __init__(self, name: str, **more: Any) -> None:
        given = {"status": "PENDING", "last_result": {}, "storage": None, "is_saving": False}
        given |= {"config": {"name": name}}
        super().__init__(trial_id=name, folder=False, **given | more)

    def set_status(self, status: str) -> None:
        self.status = status

    def update_resources(self, resources: Any) -> None:
        self.placement_group_factory = resources

    def is_finished(self) -> bool:
        return self.status in ("TERMINATED", "ERROR")

    def init_local_path(self) -> None:
        self.folder = True


class StandIn:
    """A controller with one slot after another: what is chosen starts at once."""

    def __init__(self, scheduler: Any, search: Any = None) -> None:
        self.scheduler, self.trials = scheduler, []
        self.search_alg = search or SimpleNamespace(is_finished=lambda: self.over)
        self.over = True  # the searcher has no more trials
        self.now = 0.0
        scheduler.use_clock(lambda: self.now)
        scheduler.set_search_properties("loss", "min")

    def get_trials(self) -> list[Any]:
        return self.trials

    def add(self, *names: str, **more: Any) -> None:
        for name in names:
            trial = StandInTrial(name, **more)
            self.trials.append(trial)
            self.scheduler.on_trial_add(self, trial)

    def trial(self, name: str) -> Any:
        return next(trial for trial in self.trials if trial.trial_id == name)

    def statuses(self) -> dict[str, str]:
        return {trial.trial_id: trial.status for trial in self.trials}

    def choose(self) -> str | None:
        """Who is staged now; None if nobody new is."""
        trial = self.scheduler.choose_trial_to_run(self)
        if trial is None or trial.status != "PAUSED":
            return None
        trial.status = "PENDING"
        return str(trial.trial_id)

    def start(self) -> str | None:
        """Who is staged and gets a worker."""
        name = self.choose()
        if name is not None:
            self.trial(name).status = "RUNNING"
            self.scheduler._live.workers.look(self.now)  # as at Ray's next turn
        return name

    def report(
        self, name: str, step: float, loss: float, *, saved: bool = True, **more: Any
    ) -> str:
        trial = self.trial(name)
        result = {"training_iteration": step, "loss": loss, "config": trial.config}
        result |= {"checkpoint_dir_name": "checkpoint_000000" if saved else None} | more
        action = self.scheduler.on_trial_result(self, trial, result)
        trial.last_result = result
        if action == "PAUSE":
            trial.status = "PAUSED"
        if action == "STOP":
            self.scheduler.on_trial_complete(self, trial, result)
            trial.status = "TERMINATED"
        return action

    def stop_trial(self, trial: Any) -> None:
        self.scheduler.on_trial_remove(self, trial)
        trial.status = "TERMINATED"


class Blind(Searcher):
    """Suggests without end."""

    def suggest(self, trial_id: str) -> dict[str, Any]:
        return {}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Learns nothing."""

    def save(self, checkpoint_path: str) -> None:
        """Has no state."""

    def restore(self, checkpoint_path: str) -> None:
        """Has no state."""


def endless() -> SearchGenerator:
    search = SearchGenerator(Blind())
    search._total_samples = sys.maxsize
    return search


def basic(total: int, max_concurrent: int = 0) -> BasicVariantGenerator:
    search = BasicVariantGenerator(max_concurrent=max_concurrent)
    search._total_samples = total
    return search


def on_disk(folder: Path) -> Any:
    """The storage of an experiment, as far as a scheduler looks."""
    born = folder / "born" / "staging" / "driver"
    born.mkdir(parents=True, exist_ok=True)
    return SimpleNamespace(
        storage_filesystem=pyarrow.fs.LocalFileSystem(),
        experiment_fs_path=str(folder),
        experiment_driver_staging_path=str(born),
    )
