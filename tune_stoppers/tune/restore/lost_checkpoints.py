"""A trial whose checkpoint is gone, though newer ones lie there: what it can continue from.

Ray's snapshot is older than the trial's folder: by score, Ray deletes the newest checkpoint but one
at every report. After a kill the snapshot may name one that is gone, and without that the trial
fails, or with `max_failures=-1` is tried again for ever. What was reported with the others is in
our journal, or in `result.json`.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem

from tune_stoppers.experiment.journals import Run
from tune_stoppers.journal.layout import LARGEST_FILE
from tune_stoppers.journal.lines import FORGOT, Line, parse_lines
from tune_stoppers.metrics import number
from tune_stoppers.result_keys import CHECKPOINT_NAME, TIME_TOTAL_S, TRAINING_ITERATION
from tune_stoppers.tune.ray_internals.controller import (
    NUMBERED,
    as_registered,
    name_of,
    registered,
    set_checkpoints,
)
from tune_stoppers.tune.ray_internals.types import CheckpointResult, CountingStorage, KeepingManager
from tune_stoppers.tune.restore.journalled_results import CLOCKS_APART, result_of

Metrics = dict[str, Any]


class Reported(NamedTuple):
    """The newest report that came with a checkpoint of this name, as a journal tells it."""

    time: float  # when it was judged, in seconds since the epoch
    metrics: Metrics | None  # None: the journal has no clocks of Ray's


Journalled = Mapping[tuple[str, str], Reported]  # by trial and the checkpoint's name


class CheckpointFolder(NamedTuple):
    """A checkpoint folder of a trial."""

    name: str
    saved: float  # when it was last written into, in seconds since the epoch
    files: frozenset[str]

    @property
    def number(self) -> int:
        """Ray counts the checkpoints of a trial."""
        named = NUMBERED.fullmatch(self.name)
        return int(named[1]) if named else -1


class Mended(NamedTuple):
    """What a trial continues from, instead of what is gone."""

    gone: str
    instead: str | None  # None: from zero
    newest: int  # Ray is to count its next checkpoints from here


def journalled(runs: Iterable[Run]) -> Journalled:
    """The reports that came with checkpoints, as the journals tell them."""
    found: dict[tuple[str, str], Reported] = {}
    for run in runs:
        metric, time_attr = _said(run, "metric"), _said(run, "time_attr")
        for line in run.lines:
            if line.get("event") == FORGOT:
                gone = {str(trial) for trial in line["trials"]}
                found = {key: told for key, told in found.items() if key[0] not in gone}
            elif isinstance(line.get("checkpoint"), str) and number(line.get("step")) is not None:
                key = line["trial"], line["checkpoint"]
                told = Reported(float(line["time"]), _metrics(line, metric, time_attr))
                if key not in found or _replaces(told, found[key]):
                    found[key] = told
    return found


def _said(run: Run, key: str) -> Any:
    """What the run says of itself as it begins."""
    return next((line[key] for line in run.lines if line.get(key)), None)


def _metrics(line: Line, metric: str | None, time_attr: str | None) -> Metrics | None:
    if not line.get("clocks") and time_attr == TRAINING_ITERATION:
        line = line | {"clocks": {TRAINING_ITERATION: int(line["step"])}}
    known = result_of(line, metric, time_attr or TRAINING_ITERATION)
    if known is not None and metric in known:
        value = number(known[metric])
        known[metric] = math.nan if value is None else value
    return known


def _replaces(told: Reported, known: Reported) -> bool:
    """Whether `told` says more: of the same report the one with metrics, else the newer one."""
    if abs(told.time - known.time) <= CLOCKS_APART and (told.metrics is None) != (
        known.metrics is None
    ):
        return told.metrics is not None
    return told.time >= known.time


def mend_checkpoints(
    trial_id: str,
    manager: KeepingManager,
    storage: CountingStorage,
    filesystem: FileSystem,
    folder: str,
    told: Callable[[], Journalled],
) -> Mended | None:
    """Have Ray continue a trial from its newest whole checkpoint if the one it knows is gone.

    Args:
        manager, storage: Ray's, of the trial; `manager` is changed.
        filesystem, folder: where the trial's folder is now.
        told: what the journals tell; asked for only if it is needed.

    None if nothing is missing. Where no checkpoint is whole, the trial starts from zero.
    """
    known = {name_of(result): result for result in registered(manager)}
    newest = manager.latest_checkpoint_result
    if newest is None or _is_there(filesystem, f"{folder}/{name_of(newest)}"):
        return None
    kept = list(_kept_in(filesystem, folder))
    there = {each.name: each for each in kept if each.files}
    left = {name: result for name, result in known.items() if name in there}
    if len(left) == len(known) and not _is_half_deleted(there[name_of(newest)], kept):
        return None
    said = told()
    reports = {name: said[trial_id, name] for name in there if (trial_id, name) in said}
    confirmed = {
        each.name: metrics
        for each in there.values()
        if each.name in reports and each.saved <= reports[each.name].time + CLOCKS_APART
        for metrics in [reports[each.name].metrics]
    }
    deletes = manager.checkpoint_config.num_to_keep is not None
    sure = {*left, *confirmed}
    whole = [each for i, each in enumerate(kept) if _is_whole(kept, i, sure, deletes)]
    chosen = there.get(name_of(newest))
    if chosen is None or _is_half_deleted(chosen, whole):
        for known_of in (left, confirmed):
            known_of.pop(name_of(newest), None)
        chosen = whole[-1] if whole else None
    for name, metrics in confirmed.items():
        if name not in left and metrics is not None:
            left[name] = as_registered(storage, name, metrics)
    start = None
    if chosen is not None:
        start = left.get(chosen.name) or as_registered(
            storage,
            chosen.name,
            _in_results(filesystem, folder, chosen.name)
            or _estimated(chosen.number, known, newest),
        )
    score = manager.checkpoint_config.checkpoint_score_attribute
    listed = [
        each
        for name, each in left.items()
        if name in known or score is None or score in each.metrics
    ]
    set_checkpoints(manager, listed, start)
    count = max([storage.current_checkpoint_index, *(each.number for each in kept)])
    return Mended(name_of(newest), None if chosen is None else chosen.name, count)


def _is_there(filesystem: FileSystem, path: str) -> bool:
    """Whether a folder on remote storage exists, where to list all of a trial's would take long."""
    if isinstance(filesystem, LocalFileSystem):
        return False  # it is listed
    return bool(filesystem.get_file_info(path).type is not FileType.NotFound)


def _kept_in(filesystem: FileSystem, folder: str) -> Iterator[CheckpointFolder]:
    """The checkpoints in a trial's folder, in the order in which they were last written."""
    begun: dict[str, float] = {}
    saved: dict[str, float] = {}
    files: dict[str, set[str]] = {}
    for info in filesystem.get_file_info(
        FileSelector(folder, allow_not_found=True, recursive=True)
    ):
        name, _, inner = info.path[len(folder) :].lstrip("/").partition("/")
        if not NUMBERED.fullmatch(name):
            continue
        written = (info.mtime_ns or 0) / 1e9
        files.setdefault(name, set())
        if info.type is FileType.File:
            files[name].add(inner)
            saved[name] = max(saved.get(name, 0.0), written)
        elif not inner:
            begun[name] = written
    kept = [
        CheckpointFolder(name, saved.get(name, begun.get(name, math.inf)), frozenset(inner))
        for name, inner in files.items()
    ]
    return iter(sorted(kept, key=lambda each: (each.saved, each.number)))


def _is_whole(kept: list[CheckpointFolder], i: int, sure: set[str], deletes: bool) -> bool:
    """Whether the `i`-th checkpoint, in the order written, is whole.

    A trial writes one after the other, each after Ray has registered the one before. So only the
    newest can be half written; and not that either if Ray has deleted the one before it, which it
    does when it registers the next.
    """
    each = kept[i]
    if not each.files:
        return False
    if each.name in sure or i + 1 < len(kept):
        return True
    return deletes and each.number > 0 and all(other.number != each.number - 1 for other in kept)


def _is_half_deleted(each: CheckpointFolder, whole: list[CheckpointFolder]) -> bool:
    """Whether the newest checkpoint has files that this one lacks."""
    return bool(whole) and whole[-1].saved > each.saved and bool(whole[-1].files - each.files)


def _in_results(filesystem: FileSystem, folder: str, name: str) -> Metrics | None:
    """What `result.json` has of the report that came with a checkpoint."""
    path = f"{folder}/result.json"
    info = filesystem.get_file_info(path)
    if info.type is not FileType.File or (info.size or 0) > LARGEST_FILE:
        return None
    with filesystem.open_input_stream(path) as file:
        rows = parse_lines(bytes(file.read()).decode("utf-8", "replace"), path)
    return next((row for row in reversed(rows) if row.get(CHECKPOINT_NAME) == name), None)


def _estimated(
    index: int, known: Mapping[str, CheckpointResult], newest: CheckpointResult
) -> Metrics:
    """Ray's clocks at a checkpoint that nothing tells of: trials save in even steps."""
    points = sorted(
        (int(named[1]), int(iteration))
        for name, result in known.items()
        if (named := NUMBERED.fullmatch(name))
        and (iteration := number(result.metrics.get(TRAINING_ITERATION))) is not None
    )
    if not points:
        return {}
    (first, begun), (last, reached) = ([(-1, 0), *points])[-2:]
    pace = max((reached - begun) / max(last - first, 1), 0)
    clocks = {TRAINING_ITERATION: max(round(reached + (index - last) * pace), 0)}
    return {TIME_TOTAL_S: newest.metrics.get(TIME_TOTAL_S, 0), **clocks}
