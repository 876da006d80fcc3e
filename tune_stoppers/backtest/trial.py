"""What Ray hands to schedulers, for a trial whose curve is already known.

`ReplayTrial` answers like `ray.tune.experiment.Trial` wherever a scheduler may look: status,
configuration, last result, checkpoints, storage: all of `tune.ray_internals.types.Trial`, and what
schedulers of others use. It trains nothing and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow.fs
from ray.tune.experiment import Trial

from tune_stoppers.recorded.table import Curve


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"eval/loss": 1}` to `{"eval": {"loss": 1}}`: the shape in which Ray reports results.

    Beside "eval" itself "eval/loss" stays as it is: a value cannot hold another.
    """
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *folders, leaf = key.split("/")
        if any("/".join(folders[:depth]) in flat for depth in range(1, len(folders) + 1)):
            nested[key] = value
            continue
        target = nested
        for folder in folders:
            target = target.setdefault(folder, {})
        target[leaf] = value
    return nested


class Entry(NamedTuple):
    """A line of the journal: at `time`, `action` befell `trial_id` after report `step`."""

    time: float
    trial_id: str
    step: int  # training_iteration of the last report, 0 before the first
    action: str  # start, resume, restart, pause, stop, finish, fail, retry
    by: str  # scheduler, stopper, stop_all, trial, cluster
    reason: str = ""  # of a stop, where the rule gave one as `stop_reason`


class ReplayCheckpoint:
    """A checkpoint by name only: its path is where Ray would have put it, and holds no file."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    @property
    def filesystem(self) -> pyarrow.fs.FileSystem:
        return pyarrow.fs.LocalFileSystem()

    def __repr__(self) -> str:
        return f"ReplayCheckpoint({self.path!r})"


class CheckpointResult:
    """A checkpoint and the result that it was reported with."""

    __slots__ = ("checkpoint", "metrics")

    def __init__(self, checkpoint: ReplayCheckpoint, metrics: dict[str, Any]) -> None:
        self.checkpoint = checkpoint
        self.metrics = metrics


class CheckpointManager:
    """Every checkpoint of a trial, oldest first, and the one it would resume from."""

    def __init__(self) -> None:
        self.best_checkpoint_results: list[CheckpointResult] = []
        self._latest_checkpoint_result: CheckpointResult | None = None

    @property
    def latest_checkpoint_result(self) -> CheckpointResult | None:
        return self._latest_checkpoint_result

    def register_checkpoint(self, checkpoint_result: CheckpointResult) -> None:
        self._latest_checkpoint_result = checkpoint_result
        self.best_checkpoint_results.append(checkpoint_result)

    def forget(self) -> None:
        """Keep only the latest: the trial has ended, and a sweep has many."""
        self.best_checkpoint_results = self.best_checkpoint_results[-1:]


class RunMetadata:
    """What Ray remembers of a trial's run."""

    def __init__(self) -> None:
        self.checkpoint_manager = CheckpointManager()
        self.last_result: dict[str, Any] = {}
        self.last_result_time = float("-inf")  # virtual
        self.num_failures = 0


class TemporaryState:
    """What Ray knows of a trial only while it runs."""

    __slots__ = ("restoring_from", "saving_to")

    def __init__(self) -> None:
        self.saving_to: object | None = None
        self.restoring_from: CheckpointResult | None = None


class Storage:
    """An experiment's folder on the local disk, made when somebody first asks where it is."""

    storage_filesystem = pyarrow.fs.LocalFileSystem()

    def __init__(self, folder: Path, trial_dir_name: str) -> None:
        self._folder = folder
        self.trial_dir_name = trial_dir_name

    @property
    def storage_fs_path(self) -> str:
        return str(self._folder.parent)

    @property
    def experiment_dir_name(self) -> str:
        return self._folder.name

    @property
    def experiment_fs_path(self) -> str:
        self._folder.mkdir(parents=True, exist_ok=True)
        return str(self._folder)

    @property
    def trial_fs_path(self) -> str:
        return f"{self.experiment_fs_path}/{self.trial_dir_name}"

    @property
    def experiment_driver_staging_path(self) -> str:
        return self.experiment_fs_path

    @property
    def trial_driver_staging_path(self) -> str:
        return self.trial_fs_path


class ReplayTrial:
    """Stands in for `ray.tune.experiment.Trial`.

    `storage` is None unless the replay was given a folder: a scheduler that keeps its state on
    disk has nothing to keep in a replay. Trials hash by their index in the sweep, so that sets
    of trials iterate in the same order in every run.
    """

    PENDING = Trial.PENDING
    RUNNING = Trial.RUNNING
    PAUSED = Trial.PAUSED
    TERMINATED = Trial.TERMINATED
    ERROR = Trial.ERROR

    trainable_name = "replay"
    experiment_tag = ""
    placement_group_factory = None
    checkpoint_freq = 0  # as of a function, which says itself when it saves
    checkpoint_at_end = False

    def __init__(
        self, index: int, curve: Curve, *, max_failures: int = 0, folder: Path | None = None
    ) -> None:
        self.index = index
        self.curve = curve
        self.trial_id = curve.trial_id
        self.config: dict[str, Any] = nest(curve.config)
        self.evaluated_params: dict[str, Any] = dict(curve.config)
        self.max_failures = max_failures
        self.status: str = Trial.PENDING
        self.run_metadata = RunMetadata()
        self.temporary_state = TemporaryState()
        self.storage = None if folder is None else Storage(folder, str(self))
        self.checkpoint_index = -1  # of the newest registered checkpoint
        self.reported: list[int] = []  # rows of the curve, in the order in which they came

    def __hash__(self) -> int:
        return self.index

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return f"{self.trainable_name}_{self.trial_id}".replace("/", "_")

    @property
    def last_result(self) -> dict[str, Any]:
        result = self.run_metadata.last_result
        if not result:
            result.update(trial_id=self.trial_id, config=self.config)
        return result

    @property
    def has_reported_at_least_once(self) -> bool:
        return bool(self.reported)

    @property
    def metric_analysis(self) -> dict[str, dict[str, float]]:
        """Per metric: max, min, avg and last over the reports so far (computed when asked)."""
        analysis: dict[str, dict[str, float]] = {}
        for name, values in self.curve.metrics.items():
            absent = self.curve.missing.get(name)
            rows = [row for row in self.reported if absent is None or not absent[row]]
            if not rows:
                continue
            seen = values[rows]
            analysis[name] = {
                "max": float(seen.max()),
                "min": float(seen.min()),
                "avg": float(seen.mean()),
                "last": float(seen[-1]),
            }
        return analysis

    @property
    def latest_checkpoint_result(self) -> CheckpointResult | None:
        return self.run_metadata.checkpoint_manager.latest_checkpoint_result

    @property
    def checkpoint(self) -> ReplayCheckpoint | None:
        latest = self.latest_checkpoint_result
        return latest.checkpoint if latest else None

    def has_checkpoint(self) -> bool:
        return self.checkpoint is not None

    @property
    def num_failures(self) -> int:
        return self.run_metadata.num_failures

    @property
    def is_saving(self) -> bool:
        return self.temporary_state.saving_to is not None

    @property
    def is_restoring(self) -> bool:
        return self.temporary_state.restoring_from is not None

    def is_finished(self) -> bool:
        return self.status in (Trial.ERROR, Trial.TERMINATED)

    def should_recover(self) -> bool:
        return self.max_failures < 0 or self.num_failures <= self.max_failures

    def set_status(self, status: str) -> None:
        self.status = status

    def set_config(self, config: dict[str, Any]) -> None:
        self.config = config

    def set_experiment_tag(self, experiment_tag: str) -> None:
        self.experiment_tag = experiment_tag

    def get_trainable_cls(self) -> None:
        """Nothing is trained."""

    def init_local_path(self) -> None:
        """Ray makes the trial's log folder here; a replay has none."""

    def on_checkpoint(self, checkpoint_result: CheckpointResult) -> None:
        self.run_metadata.checkpoint_manager.register_checkpoint(checkpoint_result)
        self.checkpoint_index += 1

    def on_restore(self) -> None:
        restored = self.temporary_state.restoring_from
        if restored is None:
            raise RuntimeError(f"trial {self.trial_id} is not being restored.")
        self.run_metadata.last_result = restored.metrics
        self.temporary_state.restoring_from = None

    @property
    def local_path(self) -> str | None:
        return None if self.storage is None else self.storage.trial_driver_staging_path

    @property
    def path(self) -> str | None:
        return None if self.storage is None else self.storage.trial_fs_path

    @property
    def local_experiment_path(self) -> str | None:
        return None if self.storage is None else self.storage.experiment_driver_staging_path

    @property
    def experiment_dir_name(self) -> str | None:
        return None if self.storage is None else self.storage.experiment_dir_name


if TYPE_CHECKING:
    from tune_stoppers.tune.ray_internals import types

    def _as_trial(trial: ReplayTrial) -> types.Trial:
        return trial
