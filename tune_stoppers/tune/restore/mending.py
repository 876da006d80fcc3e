"""What a kill left behind is mended before Ray reads it: at `Tuner.restore`.

Ray unpickles our schedulers, stopper and `checkpoint_config` before it reads its snapshot, and each
of them calls `mend_before_restore` then. One of them in a sweep is enough. A torn snapshot gives
way to a whole one (`snapshots`), and trials whose checkpoint is gone continue from the newest that
is there (`lost_checkpoints`). Where nothing is amiss, nothing is written.
"""

import dataclasses
import functools
import json
import logging
import weakref
from collections.abc import Callable
from typing import Any

import pyarrow.fs as pafs
from ray.tune import CheckpointConfig
from ray.tune.experiment import Trial as RayTrial

from tune_stoppers.experiment.journals import runs_of
from tune_stoppers.experiment.snapshots import mend_snapshot, newest_state
from tune_stoppers.journal.layout import put_whole
from tune_stoppers.tune.ray_internals.controller import part_of, restoring, with_part
from tune_stoppers.tune.ray_internals.types import Trial
from tune_stoppers.tune.restore.lost_checkpoints import (
    Journalled,
    Mended,
    journalled,
    mend_checkpoints,
)

logger = logging.getLogger("tune_stoppers")

ENDED = "TERMINATED"
NAMED = 3  # trials that a warning names
_SEEN: "weakref.WeakSet[Any]" = weakref.WeakSet()  # restores that have been seen to


def mend_before_restore() -> None:
    """Mend the experiment that Ray is restoring, once a restore; elsewhere nothing happens.

    What cannot be mended is left to Ray, with a warning.
    """
    found = restoring()
    if found is None or found.reads in _SEEN:
        return
    _SEEN.add(found.reads)
    try:
        if mend_snapshot(found.filesystem, found.root):
            _mend_trials(found.filesystem, found.root)
    except Exception as error:  # Ray's restore is not to fail by what is only meant to help it
        logger.warning("%s could not be looked through before the restore (%r).", found.root, error)


class RestorableCheckpointConfig(CheckpointConfig):
    """A `CheckpointConfig` that has the experiment mended when Ray restores it."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        mend_before_restore()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CheckpointConfig):
            return NotImplemented
        return dataclasses.astuple(self) == dataclasses.astuple(other)

    __hash__ = None  # type: ignore[assignment]  # as of Ray's own


def mend_trial(trial: Trial) -> None:
    """Have a live trial that does not run continue from a checkpoint that is there."""
    if not isinstance(trial, RayTrial) or getattr(trial.storage, "trial_dir_name", None) is None:
        return  # a replay has no folders, and a trial that never ran none either
    storage = trial.storage
    try:
        mended = mend_checkpoints(
            trial.trial_id,
            trial.run_metadata.checkpoint_manager,
            storage,
            storage.storage_filesystem,
            storage.trial_fs_path,
            lambda: journalled(runs_of(storage.storage_filesystem, storage.experiment_fs_path)),
        )
    except OSError as error:  # Ray meets it too, and says what it does then
        logger.warning("The folder of trial %s cannot be read (%s).", trial.trial_id, error)
        return
    if mended is not None:
        storage.current_checkpoint_index = mended.newest
        trial.invalidate_json_state()
        trial.run_metadata.invalidate_cache()
        _say({trial.trial_id: mended})


def _mend_trials(filesystem: pafs.FileSystem, root: str) -> None:
    """Change what Ray's newest snapshot has of trials whose checkpoint is gone."""
    name, data = newest_state(filesystem, root)
    state = json.loads(data)
    said = functools.cache(lambda: journalled(runs_of(filesystem, root)))
    mended: dict[str, Mended] = {}
    for trial in state["trial_data"]:
        found = _mend_trial(filesystem, root, trial, said)
        if found is not None:
            mended[json.loads(trial[0])["trial_id"]] = found
    if mended:
        put_whole(filesystem, f"{root}/{name}", json.dumps(state).encode())
        _say(mended)


def _mend_trial(
    filesystem: pafs.FileSystem, root: str, texts: list[str], said: Callable[[], Journalled]
) -> Mended | None:
    """`texts`: what the snapshot has of the trial itself and of its run; changed in place."""
    trial = json.loads(texts[0])
    folder = trial.get("relative_logdir")
    if trial["status"] == ENDED or not folder:
        return None
    manager = part_of(texts[1], "checkpoint_manager")
    if manager.latest_checkpoint_result is None:
        return None
    storage = part_of(texts[0], "storage")
    found = mend_checkpoints(
        trial["trial_id"], manager, storage, filesystem, f"{root}/{folder}", said
    )
    if found is not None:
        storage.current_checkpoint_index = found.newest
        texts[0] = with_part(texts[0], "storage", storage)
        texts[1] = with_part(texts[1], "checkpoint_manager", manager)
    return found


def _say(mended: dict[str, Mended]) -> None:
    """One line about trials that continue from something else, one about those from zero."""
    instead = {t: m for t, m in mended.items() if m.instead not in (None, m.gone)}
    from_zero = [trial_id for trial_id, m in mended.items() if m.instead is None]
    if instead:
        told = [f"{t} from {m.instead} instead of {m.gone}" for t, m in instead.items()]
        logger.warning(
            "The checkpoint that Ray's snapshot names is gone. The newest that is whole is used: "
            "trial %s.",
            _some(told),
        )
    if from_zero:
        logger.warning(
            "The checkpoint that Ray's snapshot names is gone, and no whole one is left: trial %s "
            "starts from zero.",
            _some(from_zero),
        )


def _some(told: list[str]) -> str:
    more = len(told) - NAMED
    return ", ".join(told[:NAMED]) + (f" and {more} more" if more > 0 else "")
