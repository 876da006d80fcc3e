"""The best state of every trial of an experiment: which it was, where it lies, and loading it."""

import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from pyarrow import fs

from tune_stoppers.core import Mode, require, require_number
from tune_stoppers.metrics import check_metric, closest, flat_keys, lookup, number, sign_of
from tune_stoppers.training.checkpoints import load_weights, restore_checkpoint
from tune_stoppers.tune.experiment import Experiment, ExperimentError, TrialRecord
from tune_stoppers.tune.reader import CHECKPOINT_NAME, STOP_REASON

if TYPE_CHECKING:
    import torch
    from ray.tune import CheckpointConfig, ResultGrid


@dataclass(frozen=True)
class BestState:
    """A trial's best state that was kept."""

    trial_id: str
    step: float  # the value of `time_attr` at the checkpoint
    value: float  # the metric there, in its own units
    config: dict[str, Any]
    checkpoint: str  # its folder, on `filesystem`
    metrics: dict[str, Any] = field(repr=False)  # all that was reported with it
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
) -> pd.DataFrame:
    """One row per trial: its best report, its best checkpoint, how it ended and why.

    Columns: `trial_id`; `best_step`, `best_value` of the best report; `checkpoint_step`,
    `checkpoint_value`, `checkpoint` of the best report whose checkpoint still exists (these
    differ when the best report came without one); `status` (Ray's; UNKNOWN where the experiment
    does not say); `reason` (the `stop_reason` that our stoppers set); `reports`; `config/…`.

    Values that are not finite never win; of equal values the first does. A trial without a finite
    report, or without a checkpoint, has NaN and None there. `ExperimentError` (a `ValueError`) if
    the path is no experiment or if no trial reported the metric.
    """
    found = _scan(_experiment(results), metric, mode, time_attr)
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
) -> BestState:
    """The best checkpoint of all trials, or of `trial_id`.

    `ExperimentError` if there is none: no finite value of the metric was ever reported together
    with a checkpoint that still exists.
    """
    experiment = _experiment(results)
    found = _scan(experiment, metric, mode, time_attr)
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
    metric: str, mode: Mode, *, keep: int | Literal["best+last", "all"] = "best+last"
) -> "CheckpointConfig":
    """Ray's `CheckpointConfig` that keeps each trial's best checkpoint, whatever comes later.

    `keep`: "best+last" (two folders a trial), the number n of best ones to keep beside the last
    (n + 1 folders), or "all". Ray never deletes a trial's last checkpoint.
    """
    from ray.tune import CheckpointConfig

    check_metric("checkpoint_config", metric, mode)
    if keep == "all":
        return CheckpointConfig()
    count = 1 if keep == "best+last" else keep
    if not isinstance(count, int):
        raise ValueError(f'keep must be "best+last", "all" or a number of best ones, got {keep!r}.')
    require_number("keep", count, at_least=1, integer=True)
    return CheckpointConfig(
        num_to_keep=count, checkpoint_score_attribute=metric, checkpoint_score_order=mode
    )


def _experiment(results: "ResultGrid | str | os.PathLike[str]") -> Experiment:
    if isinstance(results, (str, os.PathLike)):
        return Experiment.at(results)
    return Experiment(results.filesystem, results.experiment_path.rstrip("/"))


def _scan(
    experiment: Experiment, metric: str, mode: Mode, time_attr: str
) -> list[tuple[dict[str, Any], BestState | None]]:
    check_metric("best_states", metric, mode)
    trials = experiment.trials()
    rows = [row for trial in trials for row in trial.rows]
    if rows and not any(lookup(row, metric) is not None for row in rows):
        known = sorted(set(flat_keys(rows[-1])))
        shown = [key for key in known if not key.startswith("config/")]
        raise ExperimentError(
            f"No report in {experiment.root} has {metric!r}; they have: {', '.join(shown)}."
            f"{closest(metric, shown)}"
        )
    return [_best_of(experiment, trial, metric, mode, time_attr) for trial in trials]


def _best_of(
    experiment: Experiment, trial: TrialRecord, metric: str, mode: Mode, time_attr: str
) -> tuple[dict[str, Any], BestState | None]:
    best = _best_row(trial.rows, metric, mode)
    # a name may come twice, if the trial went back and wrote over it: the newest row tells
    kept = {row.get(CHECKPOINT_NAME): row for row in trial.rows}
    saved = _best_row([kept[name] for name in kept if name in trial.checkpoints], metric, mode)
    row: dict[str, Any] = {
        "trial_id": trial.trial_id,
        "best_step": _value(best, time_attr),
        "best_value": _value(best, metric),
        "checkpoint_step": _value(saved, time_attr),
        "checkpoint_value": _value(saved, metric),
        "checkpoint": f"{trial.folder}/{saved[CHECKPOINT_NAME]}" if saved else None,
        "status": trial.status,
        "reason": trial.rows[-1].get(STOP_REASON) if trial.rows else None,
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


def _best_row(rows: list[dict[str, Any]], metric: str, mode: Mode) -> dict[str, Any] | None:
    finite = [row for row in rows if math.isfinite(_value(row, metric))]
    return min(finite, key=lambda row: sign_of(mode) * _value(row, metric), default=None)


def _value(row: dict[str, Any] | None, key: str) -> float:
    value = None if row is None else number(lookup(row, key))
    return math.nan if value is None else value
