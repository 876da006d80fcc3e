"""What this package takes from Ray Tune, as Protocols: Ray's classes have no types of their own.

Ray's trials and controller satisfy `Trial` and `Controller`, and so do those of the replay.
`tests/tune/ray_internals/test_types.py` fails when Ray, or the replay, lacks a member.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from pyarrow.fs import FileSystem
from ray.tune import CheckpointConfig
from ray.tune.experiment import Trial as RayTrial
from ray.tune.trainable import Trainable

PENDING = str(RayTrial.PENDING)
RUNNING = str(RayTrial.RUNNING)
PAUSED = str(RayTrial.PAUSED)
TERMINATED = str(RayTrial.TERMINATED)


class Checkpoint(Protocol):
    """A checkpoint's folder."""

    @property
    def path(self) -> str: ...

    @property
    def filesystem(self) -> FileSystem: ...


class CheckpointResult(Protocol):
    """A checkpoint, and the result that it was reported with."""

    metrics: dict[str, Any]

    @property
    def checkpoint(self) -> Checkpoint: ...


class CheckpointManager(Protocol):
    """The checkpoints of a trial that are known."""

    @property
    def best_checkpoint_results(self) -> Sequence[CheckpointResult]: ...

    @property
    def latest_checkpoint_result(self) -> CheckpointResult | None: ...


class KeepingManager(CheckpointManager, Protocol):
    """Ray's own, which deletes checkpoints. A replay's has no files, and nothing to delete."""

    _checkpoint_config: CheckpointConfig
    _checkpoint_results: list[CheckpointResult]
    _latest_checkpoint_result: CheckpointResult | None

    @property
    def checkpoint_config(self) -> CheckpointConfig: ...

    def register_checkpoint(self, checkpoint_result: CheckpointResult) -> None: ...

    def _get_checkpoint_score(self, checkpoint: CheckpointResult) -> tuple[bool, float]: ...


class RunMetadata(Protocol):
    """What is known of a trial's run."""

    @property
    def checkpoint_manager(self) -> CheckpointManager: ...


class CachedMetadata(RunMetadata, Protocol):
    """Ray's own, which keeps ready what its next snapshot is to say."""

    @property
    def checkpoint_manager(self) -> KeepingManager: ...

    def invalidate_cache(self) -> None: ...


class Storage(Protocol):
    """Where the files of an experiment and of one of its trials are."""

    @property
    def storage_filesystem(self) -> FileSystem: ...

    @property
    def experiment_fs_path(self) -> str: ...

    @property
    def trial_fs_path(self) -> str: ...

    @property
    def experiment_driver_staging_path(self) -> str: ...

    @property
    def trial_dir_name(self) -> str | None: ...


class CountingStorage(Storage, Protocol):
    """Ray's own, which gives checkpoints their numbers."""

    current_checkpoint_index: int


class PlacementGroupFactory(Protocol):
    """The resources that a trial asks for."""

    @property
    def required_resources(self) -> Mapping[str, float]: ...


class Trial(Protocol):
    """A trial as stoppers and schedulers see it."""

    @property
    def trial_id(self) -> str: ...

    @property
    def config(self) -> dict[str, Any]: ...

    @property
    def status(self) -> str: ...

    @property
    def experiment_tag(self) -> str: ...

    @property
    def last_result(self) -> dict[str, Any]: ...

    @property
    def metric_analysis(self) -> Mapping[str, Mapping[str, float]]: ...

    @property
    def storage(self) -> Storage | None: ...

    @property
    def run_metadata(self) -> RunMetadata: ...

    @property
    def latest_checkpoint_result(self) -> CheckpointResult | None: ...

    @property
    def checkpoint_freq(self) -> int: ...

    @property
    def checkpoint_at_end(self) -> bool: ...

    @property
    def placement_group_factory(self) -> PlacementGroupFactory | None: ...

    @property
    def is_saving(self) -> bool: ...

    def is_finished(self) -> bool: ...

    def set_status(self, status: str) -> None: ...

    def set_config(self, config: dict[str, Any]) -> None: ...

    def init_local_path(self) -> None: ...

    def get_trainable_cls(self) -> type[Trainable] | None: ...


class StoredTrial(Trial, Protocol):
    """One of Ray's own, with files and snapshots."""

    @property
    def storage(self) -> CountingStorage: ...

    @property
    def run_metadata(self) -> CachedMetadata: ...

    def invalidate_json_state(self) -> None: ...

    def update_resources(self, resources: PlacementGroupFactory | None) -> None: ...


class SearchAlgorithm(Protocol):
    """What suggests the trials."""

    def is_finished(self) -> bool: ...

    def set_finished(self) -> None: ...


T = TypeVar("T", bound=Trial)


class ControllerOf(Protocol[T]):
    """What runs the trials, as a scheduler sees it; `T`: the class of its trials."""

    @property
    def search_alg(self) -> SearchAlgorithm: ...

    def get_trials(self) -> list[T]: ...

    def stop_trial(self, trial: T) -> None: ...


Controller: TypeAlias = ControllerOf[Trial]
