"""Ray's `ResultGrid`, as far as it knows more than the experiment's folder. Ray is not imported.

`_experiment_analysis` is private to Ray: `tests/tune/ray_internals/test_controller.py` fails when
Ray changes it.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import pyarrow.fs


class Result(Protocol):
    """What is used of one of its results."""

    @property
    def path(self) -> str: ...

    @property
    def error(self) -> Exception | None: ...

    @property
    def metrics(self) -> dict[str, Any] | None: ...


class Results(Protocol):
    """What is used of a `ResultGrid`."""

    @property
    def experiment_path(self) -> str: ...

    @property
    def filesystem(self) -> pyarrow.fs.FileSystem: ...

    def __iter__(self) -> Iterator[Result]: ...


def registered_in(results: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The checkpoints that a `ResultGrid` knows: the trial's folder, the name, and the metrics.

    `Result.best_checkpoints` lacks the newest where it is not among the best. Under PBT that may
    be another trial's: it is left out.
    """
    for trial in getattr(getattr(results, "_experiment_analysis", None), "trials", ()):
        manager = trial.run_metadata.checkpoint_manager
        for result in [*manager.best_checkpoint_results, manager.latest_checkpoint_result]:
            if result is None:
                continue
            folder, _, name = str(result.checkpoint.path).rpartition("/")
            if folder == str(trial.storage.trial_fs_path):
                yield folder, name, result.metrics
