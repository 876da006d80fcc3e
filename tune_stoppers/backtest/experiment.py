"""Learning curves from a Ray Tune experiment folder: its JSON files only, nothing is unpickled."""

from __future__ import annotations

import os
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from ray.tune.result import AUTO_RESULT_KEYS

from tune_stoppers.backtest.table import Curve
from tune_stoppers.metrics import number
from tune_stoppers.tune.experiment import Experiment, ExperimentError, TrialRecord

MOST_ITERATIONS = 2**53  # beyond, floats do not tell one from the next
ADDED_BY_RAY = frozenset(AUTO_RESULT_KEYS) | {
    "trial_id",
    "done",
    "experiment_id",
    "experiment_tag",
    "iterations_since_restore",
    "should_checkpoint",
    "time_since_restore",
}


def read_experiment(path: str | os.PathLike[str], generation: int = 0) -> list[Curve]:
    """The curves of an experiment folder (a local path or a URI), in order of folder names.

    `generation`: which sweep, where the folder holds several: 0 is the newest, 1 the one before it.

    A stretch that was run again after a restore counts once, as it went the last time. Lines cut
    off by a kill, and trials that never reported, are left out. `ExperimentError` if it is no
    experiment, or if no trial reported.
    """
    experiment = Experiment.at(path, generation=generation)
    trials = [trial for trial in experiment.trials() if _last_run(trial.rows)]
    if not trials:
        raise ExperimentError(f"{os.fspath(path)!r} holds no trial that reported.")
    return [_curve(trial) for trial in trials]


def _curve(trial: TrialRecord) -> Curve:
    rows = _last_run(trial.rows)
    flat = [_flatten({k: v for k, v in row.items() if k not in ADDED_BY_RAY}) for row in rows]
    names = [
        name
        for name in dict.fromkeys(key for row in flat for key in row)
        if name != "step" and all(_is_number(row.get(name)) for row in flat)
    ]
    # A null in the file is a NaN that Ray could not write; a key that is not there is no report.
    metrics = {name: _column(flat, name) for name in names}
    missing = {name: np.array([name not in row for row in flat]) for name in names}
    has_steps = all(isinstance(row.get("step"), Real) for row in flat)
    has_times = all(isinstance(row.get("time_total_s"), Real) for row in rows)
    config = _flatten(trial.config)
    return Curve(
        trial_id=trial.trial_id,
        config={key: value for key, value in config.items() if value is not None},
        iterations=np.array([row["training_iteration"] for row in rows], dtype=np.int64),
        metrics=metrics,
        steps=_column(flat, "step") if has_steps else None,
        seconds=np.maximum.accumulate(_column(rows, "time_total_s")) if has_times else None,
        missing={name: absent for name, absent in missing.items() if absent.any()},
    )


def _last_run(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drop what was reported again after a restore: a report takes the place of all later ones.

    So are rows without an iteration, which are none of Ray's.
    """
    kept: list[dict[str, Any]] = []
    for row in rows:
        iteration = row.get("training_iteration")
        if type(iteration) is not int or not 0 <= iteration <= MOST_ITERATIONS:
            continue
        while kept and kept[-1]["training_iteration"] >= row["training_iteration"]:
            kept.pop()
        kept.append(row)
    return kept


def _flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}/")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _is_number(value: Any) -> bool:
    return value is None or value == "null" or _is_real(value)


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _column(rows: list[dict[str, Any]], name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    cells: list[Any] = [row.get(name) for row in rows]
    numbers = [number(cell) if _is_real(cell) else None for cell in cells]
    return np.array([np.nan if value is None else value for value in numbers])
