"""Where a stopper or scheduler writes: the storage of the experiment that a trial belongs to."""

from pathlib import Path

from tune_stoppers.journal.layout import requests_folder, run_folder
from tune_stoppers.journal.recorder import Recorder
from tune_stoppers.tune.ray_internals.types import Trial


def recorder_for(trial: Trial, owner: str, uid: str) -> Recorder | None:
    """Where `owner` writes in the experiment of `trial`; None if nothing is stored: a replay."""
    storage = getattr(trial, "storage", None)
    if storage is None:
        return None
    birth = Path(storage.experiment_driver_staging_path).parents[1].name
    top = storage.experiment_fs_path
    run = run_folder(top, birth, owner, uid)
    return Recorder(storage.storage_filesystem, run, requests_folder(top))
