"""The private names of Ray's trials and controller, touched where Ray leaves no other way.

Each function says what it is for; `tests/tune/ray_internals` fails when Ray changes it. The other
private names that this package touches are beside this file.

Over 350 lines, as all that a new Ray may break in its controller is to be seen at once.
"""

import copy
import json
import logging
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, cast

from pyarrow.fs import FileSelector, FileSystem, FileType
from ray.train._internal.session import _TrainingResult
from ray.tune import Checkpoint, Stopper
from ray.tune.stopper import CombinedStopper, NoopStopper
from ray.tune.utils.serialization import TuneFunctionEncoder

from tune_stoppers.experiment.configs import as_data
from tune_stoppers.result_keys import DONE, STOP_REASON
from tune_stoppers.tune.ray_internals.types import (
    PAUSED,
    CheckpointResult,
    Controller,
    KeepingManager,
    PlacementGroupFactory,
    Storage,
    StoredTrial,
    Trial,
)

try:
    from ray.tune.utils.serialization import _loads_with_cloudpickle
except ImportError:  # before Ray 2.60 its decoder unpickles by itself
    from ray.tune.utils.serialization import TuneFunctionDecoder

    _loads_with_cloudpickle = partial(json.loads, cls=TuneFunctionDecoder)

logger = logging.getLogger("tune_stoppers")

NUMBERED = re.compile(r"checkpoint_(\d+)")  # as Ray names the folders of a trial's checkpoints
RESTORE_FRAMES = 16  # how far up a restore may be: what is unpickled nests


def stopper_of(controller: Controller) -> Stopper:
    """The sweep's stopper, of a controller as any of a scheduler's methods gets it.

    Some get a wrapper that logs a warning for every name but a few; what it wraps is asked.
    """
    inner = getattr(controller, "_tune_controller", controller)
    stopper: Stopper = getattr(inner, "_stopper", None) or NoopStopper()  # a replay hides it
    return stopper


def uncount(search: object, trial_id: str) -> None:
    """Let a `BasicVariantGenerator` give out another trial although this one has not ended.

    It counts the trials that it gave out and that have not ended, against `max_concurrent_trials`.
    """
    search._live_trials.discard(trial_id)  # type: ignore[attr-defined]


def members_of(stopper: Stopper) -> Iterator[Stopper]:
    """The stoppers that Ray has combined into this one, or itself.

    Ray combines a list of stoppers, and a stopper with `time_budget_s`.
    """
    if not isinstance(stopper, CombinedStopper):
        yield stopper
        return
    for member in stopper._stoppers:
        yield from members_of(member)


def _own(trial: Trial) -> StoredTrial:
    """`trial` as one of Ray's own, for what is never asked of a replay's."""
    return cast(StoredTrial, trial)


def keep_checkpoint(trial: Trial, name: str) -> None:
    """See to it that Ray does not delete `name` when it registers the trial's next checkpoint.

    Of its list Ray deletes what is before the last `num_to_keep`. Sorting by a score does not
    hold the best there: not where the metric is nested, a score is equal, or a checkpoint came
    without the metric. So `name` is put last, and there are at least two to keep: it and the new
    one.
    """
    manager = _own(trial).run_metadata.checkpoint_manager
    config = getattr(manager, "checkpoint_config", None)  # a replay's manager has none
    if config is None or config.num_to_keep is None:
        return  # nothing is ever deleted
    if config.num_to_keep < 2:
        manager._checkpoint_config = replace(config, num_to_keep=2)  # the trials share `config`
    manager._checkpoint_results.sort(key=lambda result: name_of(result) == name)


def keep_scored(trial: Trial, result: Mapping[str, Any]) -> None:
    """See to it that a checkpoint without the metric does not cost the trial its best one.

    Ray takes one whose report, `result`, lacks the score for the best, and deletes others for it.
    """
    manager = _own(trial).run_metadata.checkpoint_manager
    config, known = manager.checkpoint_config, manager._checkpoint_results
    score = config.checkpoint_score_attribute
    if score is None or config.num_to_keep is None:
        return
    if all(score in metrics for metrics in [result, *(r.metrics for r in known)]):
        return
    scored = [one for one in known if score in one.metrics]
    if scored:
        keep_checkpoint(trial, name_of(max(scored, key=manager._get_checkpoint_score)))


def checkpoint_of(trial: Trial, name: str) -> CheckpointResult | None:
    """What Ray has registered as the trial's checkpoint `name`, if it is still there; else None.

    Here the names are public, of a class that is not documented.
    """
    manager = trial.run_metadata.checkpoint_manager
    for result in [*manager.best_checkpoint_results, manager.latest_checkpoint_result]:
        if result is not None and name_of(result) == name:
            where = result.checkpoint
            found = where.filesystem.get_file_info(where.path).type
            return None if found is FileType.NotFound else result
    return None


def next_checkpoint(trial: Trial) -> str | None:
    """The name that Ray gives to the next checkpoint of `trial`; None without a storage.

    Trial and process count alike. The attribute is public, of a class that is not.
    """
    index = getattr(getattr(trial, "storage", None), "current_checkpoint_index", None)
    return None if index is None else f"checkpoint_{index + 1:06d}"


def remind_of(trial: Trial, name: str, metrics: dict[str, Any]) -> CheckpointResult | None:
    """Register a checkpoint in the trial's folder that Ray does not know of; as `checkpoint_of`.

    `metrics` are those reported with it: from them Ray takes the trial's iteration and time when
    it starts from there. Of what came after it Ray knows nothing either, and would give the names
    of those folders again, this one's too: it counts on from the last of them.
    """
    own = _own(trial)
    storage, manager = own.storage, own.run_metadata.checkpoint_manager
    manager.register_checkpoint(as_registered(storage, name, metrics))
    there = storage.storage_filesystem.get_file_info(FileSelector(storage.trial_fs_path))
    numbers = [int(named[1]) for info in there if (named := NUMBERED.fullmatch(info.base_name))]
    storage.current_checkpoint_index = max([storage.current_checkpoint_index, *numbers])
    own.invalidate_json_state()
    own.run_metadata.invalidate_cache()
    return checkpoint_of(trial, name)


def resume_from(trial: Trial, result: CheckpointResult) -> None:
    """Let a trial that does not run start from `result`, which `checkpoint_of` gave.

    Ray offers only a trial's newest checkpoint. Its metrics are copied: Ray takes them for the
    trial's last result, and writes into that. What Ray has made ready for its next snapshot is
    made again: after a kill the trial would continue from its newest with the config of this one.
    """
    chosen = copy.copy(result)
    chosen.metrics = dict(result.metrics)
    metadata = _own(trial).run_metadata
    metadata.checkpoint_manager._latest_checkpoint_result = chosen
    metadata.invalidate_cache()


def drop_decision(controller: Controller, trial: Trial) -> None:
    """See to it that Ray does nothing more to a restored trial than what is decided from now on.

    What is decided while a checkpoint is registered is carried out after that, and until then it
    is in Ray's snapshots: after a kill the trial would be paused, or stopped, at the first
    checkpoint that follows, which nobody had asked for.
    """
    inner = getattr(controller, "_tune_controller", controller)
    getattr(inner, "_cached_trial_decisions", {}).pop(trial.trial_id, None)  # a replay has none


def note_reason(trial: Trial, why: str) -> None:
    """Put `why` into the last result of a trial that has one, and so into Ray's next snapshot.

    What Ray has made ready for that is made again: else the reason is gone after a restore.
    """
    if not trial.last_result:
        return
    trial.last_result[STOP_REASON] = why
    _forget_cached(getattr(trial, "run_metadata", None))


def _forget_cached(metadata: Any) -> None:
    forget = getattr(metadata, "invalidate_cache", None)  # a replay has none
    if forget is not None:
        forget()


def note_never_run(trial: Trial, why: str) -> None:
    """Give a trial that was stopped before it ran a result: its configuration, and `why`.

    Ray's `ResultGrid` has none for it otherwise, not even a configuration, and warns of it.
    """
    metadata = getattr(trial, "run_metadata", None)
    storage = getattr(trial, "storage", None)
    if metadata is None or storage is None or set(metadata.last_result) - {"trial_id"}:
        return
    result = {"trial_id": trial.trial_id, "config": trial.config, DONE: True, STOP_REASON: why}
    metadata.last_result = result
    _forget_cached(metadata)
    text = json.dumps({**result, "config": as_data(trial.config)}) + "\n"
    path = f"{storage.trial_fs_path}/result.json"
    try:
        storage.storage_filesystem.create_dir(storage.trial_fs_path)
        with storage.storage_filesystem.open_output_stream(path) as file:
            file.write(text.encode())
    except OSError as error:
        logger.warning("No result could be written for trial %s: %s", trial.trial_id, error)


def write_status(controller: Controller, trial: Trial) -> None:
    """See to it that Ray's next snapshot has the status of a trial that is being stopped.

    Of one that has no process Ray would leave the old one on disk: PAUSED, and a restore would
    take the trial up again. A replay has no snapshots.
    """
    mark = getattr(controller, "_mark_trial_to_checkpoint", None)
    if mark is not None:
        mark(trial)


def is_resetting(controller: Controller, trial: Trial) -> bool:
    """Whether the process that another trial has left is being made ready for this one."""
    inner = getattr(controller, "_tune_controller", controller)
    return trial in getattr(inner, "_resetting_trials", ())  # a replay has none


def takes_process(controller: Controller, trial: Trial) -> bool:
    """Whether a pending trial would get the process that another one has left, if it were named.

    That is under `reuse_actors`: Ray keeps such a process for whichever trial of the same
    resources its scheduler names next; one of its own that is still starting is dropped then.
    """
    inner = getattr(controller, "_tune_controller", controller)
    cache = getattr(inner, "_actor_cache", None)  # a replay has none
    if cache is None or not cache.has_cached_object(trial.placement_group_factory):
        return False
    return not is_resetting(controller, trial)


def hide_paused(controller: Controller) -> None:
    """Let the scheduler around ours, if there is one, take no paused trial for live in this call.

    Ray's `ResourceChangingScheduler` shares out what the live trials leave of the cluster, and
    counts the paused ones, which hold nothing: with trials that wait at rungs there would never be
    anything left. What is changed is a wrapper that Ray makes anew for each call; a replay's view
    of its cluster is left alone.
    """
    if hasattr(controller, "_tune_controller"):
        wrapper: Any = controller
        live = wrapper.get_live_trials
        wrapper.get_live_trials = lambda: {t for t in live() if t.status != PAUSED}


def request_of(trial: Trial) -> PlacementGroupFactory | None:
    """The resources that a trial asks for; None of one that asks for none, as in a replay."""
    request: PlacementGroupFactory | None = getattr(trial, "placement_group_factory", None)
    return request


def ask_for(trial: Trial, request: PlacementGroupFactory | None) -> None:
    """Let a trial that does not run ask for these resources when it starts.

    The method is public, and said to be experimental.
    """
    if request_of(trial) != request:
        _own(trial).update_resources(request)


def sort_trials(
    controller: Controller, listed: Callable[[Trial], Any], pending: Callable[[Trial], Any]
) -> None:
    """Put the trials in another order than that in which Ray lists and starts them.

    After a restore that is the order of a set. `get_trials` gives Ray's own list; a second one has
    those that are pending, in the order in which they start. Each is sorted by its key.
    """
    inner = getattr(controller, "_tune_controller", controller)
    controller.get_trials().sort(key=listed)
    getattr(inner, "_pending_trials_list", []).sort(key=pending)


class Restoring(NamedTuple):
    """A restore in progress."""

    filesystem: FileSystem
    root: str  # of the experiment
    reads: object  # the open file; another one for each restore


def restoring() -> Restoring | None:
    """The experiment that Ray is restoring, seen from what it unpickles for it; else None.

    `Tuner.restore` unpickles our schedulers, stopper and `checkpoint_config` before Ray reads
    the snapshot. Nothing public is called as early.
    """
    frame = sys._getframe(1)
    for _ in range(RESTORE_FRAMES):
        if frame.f_code.co_name == "_restore_from_path_or_uri":
            known = frame.f_locals
            filesystem, root, reads = known.get("fs"), known.get("fs_path"), known.get("f")
            if isinstance(filesystem, FileSystem) and root and reads is not None:
                return Restoring(filesystem, str(root).rstrip("/"), reads)
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return None


def part_of(text: str, part: str) -> Any:
    """A part of one of the texts that a snapshot keeps of a trial, unpickled as Ray does it."""
    return _loads_with_cloudpickle(json.dumps(json.loads(text)[part]))


def with_part(text: str, part: str, value: Any) -> str:
    """One of those texts with `value` as that part of it."""
    data = json.loads(text)
    data[part] = json.loads(json.dumps(value, cls=TuneFunctionEncoder))
    return json.dumps(data, indent=2)


def registered(manager: KeepingManager) -> list[CheckpointResult]:
    """The checkpoints that Ray knows of a trial, the newest last."""
    known = [result for result in manager._checkpoint_results if result is not None]
    newest = manager._latest_checkpoint_result
    if newest is None:
        return known
    return [result for result in known if name_of(result) != name_of(newest)] + [newest]


def set_checkpoints(
    manager: KeepingManager, known: Iterable[CheckpointResult], newest: CheckpointResult | None
) -> None:
    """Have Ray know these checkpoints of a trial, and continue it from `newest`, or from zero.

    In the order in which Ray would delete them, the first one first.
    """
    score = manager.checkpoint_config.checkpoint_score_attribute

    def rank(result: CheckpointResult) -> tuple[bool, float, str]:
        has_score = score is not None and score in result.metrics
        told = manager._get_checkpoint_score(result) if has_score else (False, -math.inf)
        return *told, name_of(result)

    manager._checkpoint_results = sorted(known, key=rank)
    manager._latest_checkpoint_result = newest


def as_registered(storage: Storage, name: str, metrics: dict[str, Any]) -> CheckpointResult:
    """A checkpoint in the trial's folder as Ray registers it, with what was reported with it."""
    path = f"{storage.trial_fs_path}/{name}"
    result: CheckpointResult = _TrainingResult(
        Checkpoint(path, storage.storage_filesystem), metrics
    )
    return result


def name_of(result: CheckpointResult) -> str:
    """The name of the folder of a checkpoint that Ray has registered."""
    return str(result.checkpoint.path).rsplit("/", 1)[-1]
