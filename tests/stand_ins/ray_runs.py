"""Sweeps that tests run in a real Ray."""

import threading
from pathlib import Path
from typing import Any

from ray import tune


def fit(
    trainable: Any, stop: Any, folder: Path, space: dict[str, Any] | None = None, **options: Any
) -> list[tune.Result]:
    """Run a sweep; its results, in the order of the grid unless a trial was retried.

    `options` are those of `TuneConfig`, and `max_failures`. Trials share processes: to start one
    takes seconds.
    """
    options.setdefault("reuse_actors", True)
    failure = tune.FailureConfig(max_failures=options.pop("max_failures", 0))
    return list(
        tune.Tuner(
            trainable,
            param_space=space or {},
            tune_config=tune.TuneConfig(**options),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=str(folder),
                stop=stop,
                verbose=0,
                failure_config=failure,
            ),
        ).fit()
    )


def end_uploads() -> None:
    """Wait for the last upload of a sweep that broke: Ray's thread goes on with it.

    A driver that is gone has none. A restore in the same process may read half a file, and Ray then
    begins anew without a word.
    """
    for thread in threading.enumerate():
        if thread.name.endswith("(entrypoint)"):  # of Ray's syncer
            thread.join(60)
