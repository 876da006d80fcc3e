"""A recorded sweep: the learning curve of every trial, as one table with a row per report.

Columns: `trial_id`, `training_iteration` (growing within a trial), `step` (the sweep's own unit,
optional), `time_total_s` (seconds since the trial began, optional), a column per metric, and a
column `config/NAME` per hyperparameter. A row of a metric that is null was not reported; one that
is NaN was reported as NaN.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tune_stoppers.backtest.table import CONFIG, Curve, cut, metric_columns
from tune_stoppers.journal import parsed

DESCRIPTION_KEY = b"sweep"
KINDS: dict[str, Any] = {  # of the description
    "name": str,
    "primary": str,
    "mode": str,
    "metrics": dict,
    "target": (int, float),
    "surrogate": bool,
}


class Sweep:
    """A recorded sweep that `replay` can run again; made by one of the `from_…` methods.

    Attributes: `name`; `metric` and `mode` (None where the record does not say: then `replay`
    needs them); `metrics`, the names of all; `modes`, the direction of those known; `max_t`, the
    longest trial's last `training_iteration`; `surrogate`, True for predictions of a model in
    place of recorded runs: say so wherever a figure uses them; `target`, the value at which a
    run counts as done, or None; `description`, whatever else its source says of it.
    """

    def __init__(
        self,
        curves: Sequence[Curve],
        *,
        name: str = "sweep",
        metric: str | None = None,
        mode: str | None = None,
        modes: Mapping[str, str] | None = None,
        target: float | None = None,
        surrogate: bool = False,
        description: Mapping[str, Any] | None = None,
    ) -> None:
        if not curves:
            raise ValueError(f"sweep {name!r} is empty; it needs at least one trial with a report.")
        self.curves = tuple(curves)
        self.name = name
        self.metrics = tuple(dict.fromkeys(m for curve in curves for m in curve.metrics))
        self.modes = dict(modes or {})
        self.metric, self.mode = None, None
        if metric is not None:
            self.metric, self.mode = self.objective(metric, mode)
        self.target = target
        self.surrogate = surrogate
        self.description = dict(description or {})
        self.max_t = max(int(curve.iterations[-1]) for curve in curves)

    def objective(
        self, metric: str | None = None, mode: str | None = None
    ) -> tuple[str, Literal["min", "max"]]:
        """The metric and mode to judge by: those given, else the sweep's own.

        Raises ValueError where one is missing, unknown or not "min"/"max"; a mode is never guessed.
        """
        metric = metric or self.metric
        if metric is None:
            raise ValueError(
                f"sweep {self.name!r} does not say what it optimises; pass metric= (one of "
                f"{', '.join(self.metrics)}) and mode= ('min' or 'max')."
            )
        if metric not in self.metrics:
            close = difflib.get_close_matches(metric, self.metrics, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(self.metrics)}."
            raise ValueError(f"sweep {self.name!r} has no metric {metric!r}; {hint}")
        own = self.mode if metric == self.metric else self.modes.get(metric)
        mode = mode or own
        if mode == "min":
            return metric, "min"
        if mode == "max":
            return metric, "max"
        raise ValueError(f"mode must be 'min' or 'max' for metric {metric!r}, got {mode!r}.")

    def __len__(self) -> int:
        return len(self.curves)

    def __iter__(self) -> Iterator[Curve]:
        return iter(self.curves)

    def __repr__(self) -> str:
        kind = "surrogate, " if self.surrogate else ""
        return f"Sweep({self.name!r}, {kind}{len(self)} trials, {self.reports} reports)"

    @property
    def trial_ids(self) -> list[str]:
        return [curve.trial_id for curve in self.curves]

    @property
    def configs(self) -> dict[str, dict[str, Any]]:
        """Hyperparameters by trial, flat keys; those that a trial does not have are left out."""
        return {curve.trial_id: curve.config for curve in self.curves}

    @property
    def reports(self) -> int:
        return sum(len(curve) for curve in self.curves)

    @property
    def has_times(self) -> bool:
        return all(curve.seconds is not None for curve in self.curves)

    @property
    def frame(self) -> pd.DataFrame:
        """The table: a row per report, in the recorded order of trials."""
        lengths = [len(curve) for curve in self.curves]
        columns: dict[str, Any] = {
            "trial_id": np.repeat(np.array(self.trial_ids, dtype=object), lengths),
            "training_iteration": np.concatenate([curve.iterations for curve in self.curves]),
        }
        for name in ("steps", "seconds"):
            parts = [getattr(curve, name) for curve in self.curves]
            if all(part is not None for part in parts):
                columns["step" if name == "steps" else "time_total_s"] = np.concatenate(parts)
        for name in self.metrics:
            columns[name] = np.concatenate(
                [curve.metrics.get(name, np.full(len(curve), np.nan)) for curve in self.curves]
            )
        for name in dict.fromkeys(key for curve in self.curves for key in curve.config):
            cells = np.empty(len(self), dtype=object)
            cells[:] = [curve.config.get(name) for curve in self.curves]
            columns[CONFIG + name] = np.repeat(cells, lengths)
        return pd.DataFrame(columns).infer_objects()

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write the table, the description as JSON under the schema key `sweep`."""
        frame = self.frame
        arrays: dict[str, pa.Array] = {}
        for name in frame.columns:
            if name in self.metrics:
                absent = np.concatenate(
                    [
                        curve.missing.get(name, np.full(len(curve), name not in curve.metrics))
                        for curve in self.curves
                    ]
                )
                arrays[name] = pa.array(frame[name].to_numpy(), mask=absent)
            elif name.startswith(CONFIG):
                arrays[name] = _config_array(frame[name].tolist())
            else:
                arrays[name] = pa.array(frame[name])
        description = self.description | {
            "name": self.name,
            "primary": self.metric,
            "mode": self.mode,
            "metrics": self.modes,
            "target": self.target,
            "surrogate": self.surrogate,
        }
        table = pa.table(arrays)
        metadata = {DESCRIPTION_KEY: json.dumps(description).encode()}
        pq.write_table(table.replace_schema_metadata(metadata), path, compression="zstd")

    @classmethod
    def from_parquet(
        cls,
        path: str | os.PathLike[str],
        *,
        metric: str | None = None,
        mode: str | None = None,
        nan: Literal["value", "missing"] = "value",
    ) -> Sweep:
        """Read a sweep; `metric`, `mode` take the place of those in its description.

        `nan="missing"`: a NaN means "not reported", as in tables that know no nulls.
        """
        table = _table(path)
        described = _described(table.schema, path)
        name = described.pop("name", None) or os.path.splitext(os.path.basename(path))[0]
        modes = described.pop("metrics", None) or {}
        primary, own_mode = described.pop("primary", None), described.pop("mode", None)
        if metric in (None, primary):
            metric, mode = primary, mode or own_mode
        target = described.pop("target", None)
        surrogate = described.pop("surrogate", "surrogate" in str(described.get("kind")).lower())
        frame = table.to_pandas()
        absent = {
            key: table[key].is_null().to_numpy()
            for key in table.column_names
            if key in metric_columns(frame) and table[key].null_count
        }
        curves = cut(frame, absent, nan=nan, surrogate=surrogate)
        return cls(
            curves,
            name=name,
            metric=metric,
            mode=mode,
            modes=modes,
            target=target,
            surrogate=surrogate,
            description=described,
        )

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        metric: str | None = None,
        mode: str | None = None,
        name: str = "sweep",
        modes: Mapping[str, str] | None = None,
        target: float | None = None,
        surrogate: bool = False,
        nan: Literal["value", "missing"] = "value",
        description: Mapping[str, Any] | None = None,
    ) -> Sweep:
        """A sweep from a table with the columns that the module names, rows of a trial in order.

        In float columns a NaN is a value unless `nan="missing"`; None and `pd.NA` are "not
        reported". Raises ValueError, with the row (counted from 0), on missing columns, repeated
        or falling iterations, text in a metric, time that runs backwards.
        """
        absent = {}
        for key in metric_columns(frame):
            column = frame[key]
            if isinstance(column.dtype, np.dtype) and column.dtype != object:
                continue
            absent[key] = np.array([cell is None or cell is pd.NA for cell in column], dtype=bool)
        curves = cut(frame, absent, nan=nan, surrogate=surrogate)
        return cls(
            curves,
            name=name,
            metric=metric,
            mode=mode,
            modes=modes,
            target=target,
            surrogate=surrogate,
            description=description,
        )

    @classmethod
    def from_ray(
        cls,
        path: str | os.PathLike[str],
        *,
        metric: str | None = None,
        mode: str | None = None,
        name: str | None = None,
        target: float | None = None,
        generation: int = 0,
    ) -> Sweep:
        """A sweep from a Ray Tune experiment folder, finished or not, local or remote (a URI).

        Reads what each trial reported, its configuration and our journal; unpickles nothing.
        `generation`: which sweep, where the folder holds several: 0 is the newest, 1 the one before
        it.
        """
        from tune_stoppers.backtest.experiment import read_experiment

        curves = read_experiment(path, generation)
        name = name or os.fspath(path).rstrip("/").rpartition("/")[2]
        return cls(curves, name=name, metric=metric, mode=mode, target=target)


def _table(path: str | os.PathLike[str]) -> pa.Table:
    """A file's table; `ValueError` or `OSError` where Arrow cannot read it."""
    try:
        return pq.read_table(path)
    except pa.ArrowNotImplementedError as error:  # what a damaged file may ask for
        raise ValueError(f"{os.fspath(path)!r} cannot be read: {error}") from error


def _described(schema: pa.Schema, path: str | os.PathLike[str]) -> dict[str, Any]:
    """What the source of a sweep says of it; ValueError if that is no description."""
    text = (schema.metadata or {}).get(DESCRIPTION_KEY, b"{}")
    try:
        described = parsed(text.decode())
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: its description is no JSON: {error}") from error
    if not isinstance(described, dict):
        raise ValueError(f"{os.fspath(path)}: its description is no JSON object.")
    for key, kinds in KINDS.items():
        if not isinstance(described.get(key), (kinds, NoneType)):
            raise ValueError(f"{os.fspath(path)}: {key!r} of its description: {described[key]!r}")
    return described


def _config_array(cells: list[Any]) -> pa.Array:
    """A column of one type; where a hyperparameter has values of several, all become text."""
    try:
        return pa.array(cells, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if cell is None else str(cell) for cell in cells])
