"""Stopping a trial of a running sweep by hand: a request that our stoppers and schedulers read."""

import os
import re
import uuid
from collections.abc import Sequence

import pyarrow.fs as pafs

from tune_stoppers.metrics import closest
from tune_stoppers.recorder import request_text
from tune_stoppers.tune.experiment import FAILED, TERMINATED, Experiment, ExperimentError
from tune_stoppers.tune.inside import is_inside
from tune_stoppers.tune.runs import runs_of
from tune_stoppers.tune.state import FOLDER, REQUESTS

LONGEST_WHY = 1000  # characters


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
        trial: its id, or how that alone begins.
        why: for the journal, and the trial's `stop_reason`.
        filesystem: pyarrow's, where the folder is not on one that its URI names.

    `ExperimentError` (a `ValueError`) if there is no such trial, if it has ended, or if no stopper
    or scheduler of ours watches the experiment: nobody would act on it.
    """
    if len(why) > LONGEST_WHY:
        raise ExperimentError(f"The reason has {len(why)} characters, {LONGEST_WHY} are kept.")
    experiment = Experiment.at(path, filesystem)
    records = {record.trial_id: record for record in experiment.trials()}
    trial_id = meant(trial, list(records))
    if not re.fullmatch(r"\w[\w.-]*", trial_id):
        raise ExperimentError(f"{trial_id!r} is no id that Ray gives a trial.")
    if records[trial_id].status in (TERMINATED, FAILED):
        raise ExperimentError(f"Trial {trial_id} has already ended.")
    if not runs_of(experiment.filesystem, experiment.root):
        raise ExperimentError(
            f"Nobody would act on it: no stopper or scheduler of tune_stoppers has watched "
            f"{experiment.root} yet."
        )
    folder = f"{experiment.root}/{FOLDER}/{REQUESTS}"
    if not is_inside(experiment.filesystem, folder, experiment.root):
        raise ExperimentError(f"{folder} leads out of the experiment's folder: remove the link.")
    experiment.filesystem.create_dir(folder, recursive=True)
    part = f"{folder}/{uuid.uuid4().hex}.part"  # a name that no link waits under
    with experiment.filesystem.open_output_stream(part) as file:
        file.write(request_text(why).encode())
    experiment.filesystem.move(part, f"{folder}/{trial_id}.json")
    return trial_id


def meant(name: str, known: Sequence[str]) -> str:
    """The id in `known` that is `name`, or alone begins so; `ExperimentError` names close ones."""
    if name in known:
        return name
    begun = [each for each in known if name and each.startswith(name)]
    if len(begun) == 1:
        return begun[0]
    if begun:
        raise ExperimentError(f"Several trials begin with {name!r}: {_some(begun)}.")
    hint = closest(name, list(known)) or f" There are: {_some(known)}."
    raise ExperimentError(f"No trial {name!r}.{hint}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
