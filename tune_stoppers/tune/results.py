"""The best state of every trial of an experiment: which it was, where it lies, and loading it."""

import logging
import math
import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from pyarrow import fs

from tune_stoppers.core import Mode, require, require_number
from tune_stoppers.metrics import check_metric, closest, flat_keys, lookup, number, sign_of
from tune_stoppers.training.checkpoints import load_weights, restore_checkpoint
from tune_stoppers.tune.experiment import (
    FAILED,
    TERMINATED,
    Experiment,
    ExperimentError,
    TrialRecord,
)
from tune_stoppers.tune.mending import RestorableCheckpointConfig
from tune_stoppers.tune.reader import CHECKPOINT_NAME
from tune_stoppers.tune.runs import Run, merged
from tune_stoppers.tune.saved import Saved, saved_in
from tune_stoppers.tune.train_runs import TRAIN_CHECKPOINT

if TYPE_CHECKING:
    import torch
    from ray.tune import CheckpointConfig, ResultGrid

logger = logging.getLogger("tune_stoppers")


@dataclass(frozen=True)
class BestState:
    """A trial's best state that was kept."""

    trial_id: str
    step: float  # the value of `time_attr` at the checkpoint
    value: float  # the metric there, in its own units
    config: dict[str, Any]
    checkpoint: str  # its folder, on `filesystem`
    metrics: dict[str, Any] = field(repr=False)  # what was reported with it, as far as is known
    filesystem: fs.FileSystem = field(repr=False)

    @contextmanager
    def directory(self) -> Iterator[str]:
        """The checkpoint as a local folder: itself, or a copy that lasts as long as the block."""
        if isinstance(self.filesystem, fs.LocalFileSystem):
            yield self.checkpoint
            return
        target = tempfile.mkdtemp(prefix="tune_stoppers-")
        try:
            fs.copy_files(self.checkpoint, target, source_filesystem=self.filesystem)
            yield target
        finally:
            shutil.rmtree(target, ignore_errors=True)

    def load(self) -> "dict[str, torch.Tensor]":
        """The weights in the checkpoint, by name, on the CPU."""
        with self.directory() as directory:
            return load_weights(directory)

    def restore(self, model: Any, optimizer: Any = None, scheduler: Any = None) -> float:
        """Put the state into `model` (and, if given, optimizer and scheduler); its step."""
        with self.directory() as directory:
            restore_checkpoint(directory, model, optimizer, scheduler)
        return self.step


def best_states(
    results: "ResultGrid | str | os.PathLike[str]",
    metric: str,
    mode: Mode,
    *,
    time_attr: str = "training_iteration",
    filesystem: fs.FileSystem | None = None,
    generation: int = 0,
) -> pd.DataFrame:
    """One row per trial: its best report, its best checkpoint, how it ended and why.

    Columns: `trial_id`; `best_step`, `best_value` of the best report; `checkpoint_step`,
    `checkpoint_value`, `checkpoint` of the best report whose checkpoint still exists (these
    differ when the best report came without one); `status`; `reason` (why a stopper or
    scheduler of ours stopped it); `reports`; `config/…`.

    Status: TERMINATED (stopped, or returned), ERROR (failed, and did not go on), or UNKNOWN. By
    path, a function that just returned is UNKNOWN, as one that is running, paused or interrupted
    is, unless its last report has `progress` 1 or a journal of ours saw it end.

    Ray can lose results of a trial that it restores or resumes: of those that came with a
    checkpoint that still exists, what a journal of ours kept counts too, if that stopper or
    scheduler had the same metric and `time_attr`; not in `reports`.

    Values that are not finite never win; of equal values the first does. A trial without a finite
    report, or without a checkpoint, has NaN and None there. The checkpoints of a Ray Train run
    inside the trial are found if they lie in the same storage path as the experiment.

    Args:
        results: what `Tuner.fit` gave, or the experiment's folder (a local path or a URI), of a
            finished or an unfinished run.
        metric: what trials reported, "eval_loss" or, nested, "eval/loss".
        mode: "min" or "max"; required.
        time_attr: what counts as the step.
        filesystem: pyarrow's, where the folder is not on one that its URI names
            (`RunConfig(storage_filesystem=...)`).
        generation: which sweep, where the folder holds several, as one that was begun anew leaves
            the trials of the one before: 0 is the newest, 1 the one before it.

    `ExperimentError` (a `ValueError`) if the path is no experiment or if no trial reported the
    metric.
    """
    experiment, trials, runs = _read(results, filesystem, generation)
    found = _scan(experiment, trials, runs, metric, mode, time_attr)
    rows = [row for row, _ in found]
    frame = pd.DataFrame(rows)
    for column in ("checkpoint", "reason"):  # None stays None instead of becoming NaN
        if rows:
            frame[column] = pd.Series([row[column] for row in rows], dtype=object)
    return frame


def best_state(
    results: "ResultGrid | str | os.PathLike[str]",
    metric: str,
    mode: Mode,
    *,
    trial_id: str | None = None,
    time_attr: str = "training_iteration",
    filesystem: fs.FileSystem | None = None,
    generation: int = 0,
) -> BestState:
    """The best checkpoint of all trials, or of `trial_id`; arguments as for `best_states`.

    `ExperimentError` if there is none: no finite value of the metric was ever reported together
    with a checkpoint that still exists.
    """
    experiment, trials, runs = _read(results, filesystem, generation)
    found = _scan(experiment, trials, runs, metric, mode, time_attr)
    states = [state for _, state in found if state is not None]
    if trial_id is not None:
        known = [row["trial_id"] for row, _ in found]
        require(trial_id in known, f"No trial {trial_id!r}.{closest(trial_id, known)}")
        states = [state for state in states if state.trial_id == trial_id]
    if not states:
        which = "No trial" if trial_id is None else f"Trial {trial_id}"
        raise ExperimentError(
            f"No best state in {experiment.root}: {which} has a finite {metric!r} reported "
            "together with a checkpoint that still exists."
        )
    return min(states, key=lambda state: sign_of(mode) * state.value)


def checkpoint_config(
    metric: str,
    mode: Mode,
    *,
    keep: int | Literal["best+last", "all"] = "best+last",
    trials: int | None = None,
    checkpoint_bytes: float | None = None,
    storage_path: str | os.PathLike[str] | None = None,
) -> "CheckpointConfig":
    """Ray's `CheckpointConfig` that keeps each trial's best checkpoint, whatever comes later.

    Ray goes by the metric in the report that brings the checkpoint: never report a checkpoint
    without it. It never deletes a trial's last checkpoint.

    Ray writes a snapshot of the sweep at every n-th checkpoint of a trial, n being `keep` (1 for
    "best+last"), and every ten seconds. After a kill the checkpoint that it names may be gone. This
    config then has the folder mended before `Tuner.restore` reads it: the trial continues from its
    newest whole checkpoint, or from zero if there is none.

    Args:
        metric: a name at the top of the reports. For a nested one ("eval/loss") Ray 2.60 keeps
            the newest instead of the best, without a word: `ValueError`.
        mode: "min" or "max"; required.
        keep: "best+last" (two folders a trial), the number n of best ones to keep beside the last
            (n + 1 folders), or "all".
        trials, checkpoint_bytes: if given, the space that the sweep will take is logged now.
        storage_path: if given too, and local, a disk with less free space is warned of.
    """
    check_metric("checkpoint_config", metric, mode)
    if keep == "all":
        return RestorableCheckpointConfig()
    count = 1 if keep == "best+last" else keep
    if not isinstance(count, int):
        raise ValueError(f'keep must be "best+last", "all" or a number of best ones, got {keep!r}.')
    require_number("keep", count, at_least=1, integer=True)
    require(
        "/" not in metric,
        f"Ray keeps the newest checkpoint, not the best, if the metric is nested, got {metric!r}: "
        f'report it at the top, as {metric.replace("/", "_")!r}, or give keep="all".',
    )
    if trials is not None and checkpoint_bytes is not None:
        _say_space(count + 1, trials, checkpoint_bytes, storage_path)
    return RestorableCheckpointConfig(
        num_to_keep=count, checkpoint_score_attribute=metric, checkpoint_score_order=mode
    )


def _say_space(
    folders: int, trials: int, size: float, storage_path: str | os.PathLike[str] | None
) -> None:
    """Log what the checkpoints of a sweep take; warn if the disk has less."""
    require_number("trials", trials, at_least=1, integer=True)
    require_number("checkpoint_bytes", size, at_least=0)
    total = trials * folders * size
    text = f"Checkpoints: {trials} trials x {folders} x {size / 1e9:.3g} GB = {total / 1e9:.3g} GB"
    if storage_path is not None and os.path.isdir(storage_path):
        free = shutil.disk_usage(storage_path).free
        if free < total:
            logger.warning(
                "%s, and %s has %.3g GB left: keep fewer, or LoRA adapters alone.",
                *(text, os.fspath(storage_path), free / 1e9),
            )
            return
    logger.info("%s.", text)


def _read(
    results: "ResultGrid | str | os.PathLike[str]",
    filesystem: fs.FileSystem | None,
    generation: int,
) -> tuple[Experiment, list[TrialRecord], list[Run]]:
    ended: dict[str, str] = {}
    if isinstance(results, (str, os.PathLike)):
        experiment = Experiment.at(results, filesystem, generation)
    else:
        experiment = Experiment.of(results)
        ended = {
            posixpath.basename(result.path): FAILED if result.error else TERMINATED
            for result in results
            if result.error or (result.metrics or {}).get("done")
        }
    runs = experiment.runs()
    return experiment, experiment.trials(ended, merged(runs)), runs


def _scan(
    experiment: Experiment,
    trials: list[TrialRecord],
    runs: list[Run],
    metric: str,
    mode: Mode,
    time_attr: str,
) -> list[tuple[dict[str, Any], BestState | None]]:
    check_metric("best_states", metric, mode)
    rows = [row for trial in trials for row in trial.rows]
    if rows and not any(lookup(row, metric) is not None for row in rows):
        known = sorted(set(flat_keys(rows[-1])))
        shown = [key for key in known if not key.startswith("config/")]
        raise ExperimentError(
            f"No report in {experiment.root} has {metric!r}; they have: {', '.join(shown)}."
            f"{closest(metric, shown)}"
        )
    saved = saved_in(runs, {t.trial_id: t.checkpoints for t in trials}, metric, time_attr)
    return [
        _best_of(experiment, trial, saved.get(trial.trial_id, {}), metric, mode, time_attr)
        for trial in trials
    ]


def _best_of(
    experiment: Experiment,
    trial: TrialRecord,
    journalled: Mapping[str, Saved],
    metric: str,
    mode: Mode,
    time_attr: str,
) -> tuple[dict[str, Any], BestState | None]:
    # a folder may come twice, if the trial went back and wrote over it: the newest row tells
    kept = {_folder(trial, row): row for row in trial.rows}
    lost: dict[str | None, dict[str, Any]] = {
        folder: saved.row
        for name, saved in journalled.items()
        if saved.replaces(kept.get(folder := f"{trial.folder}/{name}"), metric, time_attr)
    }
    kept |= lost
    best = _best_row([*trial.rows, *lost.values()], metric, mode)
    saved = _best_row(list(_existing(experiment, trial, kept)), metric, mode)
    row: dict[str, Any] = {
        "trial_id": trial.trial_id,
        "best_step": _value(best, time_attr),
        "best_value": _value(best, metric),
        "checkpoint_step": _value(saved, time_attr),
        "checkpoint_value": _value(saved, metric),
        "checkpoint": _folder(trial, saved) if saved else None,
        "status": trial.status,
        "reason": trial.reason,
        "reports": len(trial.rows),
    }
    row |= {f"config/{key}": lookup(trial.config, key) for key in flat_keys(trial.config)}
    if saved is None:
        return row, None
    state = BestState(
        trial_id=trial.trial_id,
        step=row["checkpoint_step"],
        value=row["checkpoint_value"],
        config=trial.config,
        checkpoint=row["checkpoint"],
        metrics=saved,
        filesystem=experiment.filesystem,
    )
    return row, state


def _folder(trial: TrialRecord, row: dict[str, Any]) -> str | None:
    """Where the checkpoint that came with a report lies: with Tune, or with Ray Train."""
    name = row.get(CHECKPOINT_NAME)
    if name:
        return f"{trial.folder}/{name}"
    path = row.get(TRAIN_CHECKPOINT)
    return path if isinstance(path, str) and path else None


def _existing(
    experiment: Experiment, trial: TrialRecord, kept: dict[str | None, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Those of the reports in `kept`, by folder, whose folder still exists."""
    for folder, row in kept.items():
        if row.get(CHECKPOINT_NAME):
            if str(row[CHECKPOINT_NAME]) in trial.checkpoints:
                yield row
        elif folder is not None and experiment.is_folder(folder):
            yield row


def _best_row(rows: list[dict[str, Any]], metric: str, mode: Mode) -> dict[str, Any] | None:
    finite = [row for row in rows if math.isfinite(_value(row, metric))]
    return min(finite, key=lambda row: sign_of(mode) * _value(row, metric), default=None)


def _value(row: dict[str, Any] | None, key: str) -> float:
    value = None if row is None else number(lookup(row, key))
    return math.nan if value is None else value
