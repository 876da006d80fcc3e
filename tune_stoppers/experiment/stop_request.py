"""Stopping a trial of a running sweep by hand: a request that our stoppers and schedulers read."""

import contextlib
import os
import re
import time
import uuid
from collections.abc import Iterable, Mapping

import pyarrow.fs as pafs

from tune_stoppers.experiment.folder import Experiment, ExperimentError
from tune_stoppers.experiment.journals import runs_of
from tune_stoppers.experiment.listed import FAILED, TERMINATED
from tune_stoppers.experiment.paths import is_inside
from tune_stoppers.journal.layout import request_text, requests_folder
from tune_stoppers.metrics import closest

LONGEST_WHY = 1000  # characters
PART, PART_SECONDS = ".part", 60.0  # of a file being written, and how long that may take


def ask_to_stop(
    path: str | os.PathLike[str],
    trial: str,
    why: str = "",
    *,
    filesystem: pafs.FileSystem | None = None,
) -> str:
    """Ask for a trial to be stopped at its next report; the trial's whole id.

    Args:
        path: the experiment's folder, of a sweep that runs (or will be restored).
        trial: its id, or what `meant` takes for it.
        why: for the journal, and the trial's `stop_reason`.
        filesystem: pyarrow's, where the folder is not on one that its URI names.

    `ExperimentError` (a `ValueError`) if there is no such trial, if it has ended, or if none of
    our stoppers and schedulers watches the experiment: nobody would act on it.
    """
    if len(why) > LONGEST_WHY:
        raise ExperimentError(f"The reason has {len(why)} characters, {LONGEST_WHY} are kept.")
    experiment = Experiment.at(path, filesystem)
    records = {record.trial_id: record for record in experiment.trials()}
    trial_id = meant(trial, {name: record.names for name, record in records.items()})
    if not re.fullmatch(r"\w[\w.-]*", trial_id):
        raise ExperimentError(f"{trial_id!r} is no id that Ray gives a trial.")
    if records[trial_id].status in (TERMINATED, FAILED):
        raise ExperimentError(f"Trial {trial_id} has already ended.")
    if not runs_of(experiment.filesystem, experiment.root):
        raise ExperimentError(
            f"Nobody would act on it: no stopper or scheduler of tune_stoppers has watched "
            f"{experiment.root} yet."
        )
    folder = requests_folder(experiment.root)
    if not is_inside(experiment.filesystem, folder, experiment.root):
        raise ExperimentError(f"{folder} leads out of the experiment's folder: remove the link.")
    experiment.filesystem.create_dir(folder, recursive=True)
    _remove_parts(experiment.filesystem, folder)
    part = f"{folder}/{uuid.uuid4().hex}{PART}"  # a name that no link waits under
    try:
        with experiment.filesystem.open_output_stream(part) as file:
            file.write(request_text(why).encode())
        experiment.filesystem.move(part, f"{folder}/{trial_id}.json")
    except BaseException:  # a full disk, or Ctrl-C
        with contextlib.suppress(OSError):
            experiment.filesystem.delete_file(part)
        raise
    return trial_id


def _remove_parts(filesystem: pafs.FileSystem, folder: str) -> None:
    """Delete what was left of requests that were cut off as they were written, long enough ago."""
    for info in filesystem.get_file_info(pafs.FileSelector(folder)):
        old = info.mtime is not None and time.time() - info.mtime.timestamp() > PART_SECONDS
        if info.base_name.endswith(PART) and old:
            with contextlib.suppress(OSError):
                filesystem.delete_file(info.path)


def meant(name: str, known: Mapping[str, Iterable[str]]) -> str:
    """The id of the trial that `name` means, of those in `known`, each with its other names.

    That is: the id, or the name in Ray's tables ("train_3a5e0_00002") or of the trial's folder; or
    how one trial's id alone begins or ends ("00002"). `ExperimentError` lists all that it may mean,
    or the closest.
    """
    if name in known:
        return name
    called = [
        each
        for each, names in known.items()
        if name in names or (name.endswith(f"_{each}") and name)
    ]
    part = [each for each in known if name and (each.startswith(name) or each.endswith(name))]
    for found in (called, part):
        if len(found) == 1:
            return found[0]
        if found:
            begun = all(each.startswith(name) for each in found)
            how = f"begin with {name!r}" if begun else f"may be {name!r}"
            raise ExperimentError(f"Several trials {how}: {_some(found)}.")
    hint = closest(name, list(known)) or f" There are: {_some(known)}."
    raise ExperimentError(f"No trial {name!r}.{hint}")


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
