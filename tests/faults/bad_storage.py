"""A shared storage in a bad state: slow, and for a while not to be written by us."""

import time
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.fs as pafs
from ray import tune

SLOW_SECONDS = 0.2  # each write


class BadStorage(pafs.FSSpecHandler):
    """The local disk; while the file `sick` is there, nothing of ours can be written."""

    def __init__(self, sick: str) -> None:
        super().__init__(fsspec.filesystem("file"))
        self.sick = sick

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        """Arrow's call for each file that is written."""
        if Path(self.sick).exists() and "/tune_stoppers/" in path:
            raise OSError("the quota is used up")
        time.sleep(SLOW_SECONDS)
        return super().open_output_stream(path, metadata)

    def __reduce__(self) -> Any:
        return BadStorage, (self.sick,)


class Mended(tune.Callback):
    """Somebody mends the storage after the 30th report of the sweep."""

    def __init__(self, sick: str) -> None:
        self.sick, self.reports = sick, 0

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any):
        """Ray's call for each report."""
        self.reports += 1
        if self.reports == 30:
            Path(self.sick).unlink()
