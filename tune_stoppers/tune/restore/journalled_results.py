"""Checkpoints that Ray forgot in a kill: its snapshot is older than they are, our journal is not.

A name alone does not say what is in a folder: Ray forgot how far it had counted too, and may give
the name again. Two things tell: the newest line of the journal with that name, and that nothing in
the folder was written after it, by a trial that was killed before its report came.
"""

from typing import Any

from pyarrow.fs import FileSelector, FileType

from tune_stoppers.journal.lines import Line
from tune_stoppers.metrics import number
from tune_stoppers.result_keys import CHECKPOINT_NAME, TRAINING_ITERATION
from tune_stoppers.tune.ray_internals.types import Storage

CLOCKS_APART = 1.0  # seconds, of storage and driver; a trial is not started again in less


def is_there(storage: Storage, name: str) -> bool:
    """Whether the trial's folder has one of this name in it."""
    if storage.trial_dir_name is None:
        return False  # a trial that never ran has no folder
    info = storage.storage_filesystem.get_file_info(_path(storage, name))
    return info.type is FileType.Directory


def is_as_saved(storage: Storage, name: str, line: Line) -> bool:
    """Whether nothing in the folder is newer than the line of the report that it came with."""
    reported = line["time"] + CLOCKS_APART
    inside = FileSelector(_path(storage, name), recursive=True)
    return all(
        info.mtime_ns is None or info.mtime_ns / 1e9 <= reported
        for info in storage.storage_filesystem.get_file_info(inside)
        if info.type is FileType.File
    )


def result_of(line: Line, metric: str | None, time_attr: str) -> dict[str, Any] | None:
    """What `line` keeps of the report that it judged, as a result; None without Ray's clocks."""
    clocks: dict[str, Any] = line.get("clocks") or {}
    if number(clocks.get(TRAINING_ITERATION)) is None:
        return None
    known = {time_attr: line["step"], CHECKPOINT_NAME: line["checkpoint"]}
    known |= line.get("metrics", {})
    known |= {metric: line["value"]} if metric else {}
    return known | clocks  # last: Ray counts iterations in whole numbers, a line's step is a float


def _path(storage: Storage, name: str) -> str:
    return f"{storage.trial_fs_path}/{name}"
