"""Learning curves from a Ray Tune experiment folder: its JSON files only, nothing is unpickled."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from tune_stoppers.experiment.folder import Experiment, ExperimentError, TrialRecord
from tune_stoppers.experiment.journals import objective_of
from tune_stoppers.metrics import recorded
from tune_stoppers.recorded.table import Curve
from tune_stoppers.result_keys import RAYS_OWN

MOST_ITERATIONS = 2**53  # beyond, floats do not tell one from the next
BY_RAY = RAYS_OWN | {"experiment_tag"}  # of older versions too


def read_experiment(
    path: str | os.PathLike[str], *, nan_is_missing: bool = False, generation: int = 0
) -> list[Curve]:
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
    return [_curve(trial, nan_is_missing) for trial in trials]


def objective_at(
    path: str | os.PathLike[str], generation: int = 0
) -> tuple[str | None, str | None]:
    """The metric and the mode that the experiment's journals name, None for what they do not."""
    experiment = Experiment.at(path, generation=generation)
    return objective_of(experiment.journal())


def _curve(trial: TrialRecord, nan_is_missing: bool) -> Curve:
    rows = _last_run(trial.rows)
    flat = [_flatten({k: v for k, v in row.items() if k not in BY_RAY}) for row in rows]
    columns: dict[str, list[float | None]] = {}
    for name in dict.fromkeys(key for row in flat for key in row):
        cells = [recorded(row.get(name)) for row in flat]
        if any(cell is not None for cell in cells) or all(row.get(name) is None for row in flat):
            columns[name] = cells  # else it is text
    times = [recorded(row.get("time_total_s")) for row in rows]
    steps = columns.pop("step", [None])
    missing = {
        name: np.array([cell is None or (nan_is_missing and cell != cell) for cell in cells])
        for name, cells in columns.items()
    }
    config = _flatten(trial.config)
    return Curve(
        trial_id=trial.trial_id,
        config={key: value for key, value in config.items() if value is not None},
        iterations=np.array([row["training_iteration"] for row in rows], dtype=np.int64),
        metrics={name: _floats(cells) for name, cells in columns.items()},
        steps=None if None in steps else _floats(steps),
        seconds=None if None in times else np.maximum.accumulate(_floats(times)),
        missing={name: absent for name, absent in missing.items() if absent.any()},
    )


def _last_run(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drop what was reported again after a restore: a report replaces all later ones.

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


def _floats(cells: list[float | None]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([np.nan if cell is None else cell for cell in cells], dtype=np.float64)
