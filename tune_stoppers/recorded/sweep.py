"""A recorded sweep: the learning curve of every trial, as one table with a row per report.

Columns: `trial_id`, `training_iteration` (growing within a trial), `step` (the sweep's own unit,
optional), `time_total_s` (seconds since the trial began, optional), a column per metric, and a
column `config/NAME` per hyperparameter.

Missing is not diverged: an empty cell, a null, None and an absent key say that the metric was not
reported; a NaN that was reported is a value, and a bad one. Where a source cannot tell the two
apart, `nan="auto"` goes by `holes.holes`; `Sweep.reading` says what was taken for what.

Over 350 lines by the docstrings of the readers, which say how each kind of cell is taken.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tune_stoppers.recorded import files
from tune_stoppers.recorded.exported import arranged
from tune_stoppers.recorded.table import CONFIG, Curve, NaN, cut, metric_columns
from tune_stoppers.recorded.tracked import TrackedSweeps


class Sweep(TrackedSweeps):
    """A recorded sweep that `replay` can run again; made by one of the `from_…` methods.

    Attributes: `name`; `metric` and `mode` (None where the record does not say: then `replay`
    needs them); `metrics`, the names of all; `modes`, the direction of those known; `max_t`, the
    longest trial's last `training_iteration`; `surrogate`, True for predictions of a model instead
    of recorded runs: say so wherever a figure uses them; `target`, the value at which a
    run counts as done, or None; `description`, whatever else its source says of it; `reading`,
    a text that says what was taken for what.
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
        taken: str = "",
        guessed: Mapping[str, int] | None = None,
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
        self._taken = taken  # which column for what
        self._guessed = dict(guessed or {})  # NaN that were taken for empty cells, by metric
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
        reading = f"; {self.reading}" if self.reading else ""
        return f"Sweep({self.name!r}, {kind}{len(self)} trials, {self.reports} reports{reading})"

    @property
    def reading(self) -> str:
        """What was taken for what: the columns, and how many rows have each metric.

        Of the metrics only the sweep's own, or all where it does not say; nothing is said of one
        that is a finite number in every row.
        """
        names = self.metrics if self.metric is None else (self.metric,)
        return self.reading_of(*names)

    def reading_of(self, *metrics: str) -> str:
        """`reading`, of these metrics."""
        return " ".join(filter(None, [self._taken, *map(self.rows_of, metrics)]))

    def rows_of(self, metric: str) -> str:
        """How many rows have a value of `metric`, none, or a diverged one; "" if all are finite."""
        missing = diverged = 0
        for curve in self:
            if metric not in curve.metrics:
                missing += len(curve)
                continue
            absent = curve.missing.get(metric, np.zeros(len(curve), dtype=bool))
            missing += int(absent.sum())
            diverged += int((~np.isfinite(curve.metrics[metric]) & ~absent).sum())
        if not missing and not diverged:
            return ""
        guessed = self._guessed.get(metric, 0)
        taken = f" ({guessed} NaN taken for empty cells)" if guessed else ""
        return (
            f"{metric}: {self.reports - missing - diverged} of {self.reports} rows have a value, "
            f"{missing} have none{taken}, {diverged} diverged (NaN or infinite)."
        )

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
                arrays[name] = files.config_array(frame[name].tolist())
            else:
                arrays[name] = pa.array(frame[name])
        description = self.description | {
            "name": self.name,
            "primary": self.metric,
            "mode": self.mode,
            "metrics": self.modes,
            "target": self.target,
            "surrogate": self.surrogate,
            "nulls": True,  # an empty cell is one: a NaN is a value
        }
        table = pa.table(arrays)
        metadata = {files.DESCRIPTION_KEY: json.dumps(description).encode()}
        pq.write_table(table.replace_schema_metadata(metadata), path, compression="zstd")

    @classmethod
    def from_parquet(
        cls,
        path: str | os.PathLike[str],
        *,
        metric: str | None = None,
        mode: str | None = None,
        nan: NaN = "auto",
        trial: str | None = None,
        time: str | None = None,
        seconds: str | None = None,
        config: Iterable[str] = (),
    ) -> Sweep:
        """Read a sweep; `metric`, `mode` replace those in its description.

        A null is an empty cell. A NaN, and a null in a column of floats that pandas wrote (it
        writes null for both), is read as `from_frame` reads a NaN, with the same keywords.
        """
        table = files.parquet_table(path)
        said = files.described(table.schema, path)
        name = said.pop("name", None) or _stem(path)
        modes = said.pop("metrics", None) or {}
        primary, own_mode = said.pop("primary", None), said.pop("mode", None)
        if metric in (None, primary):
            metric, mode = primary, mode or own_mode
        target = said.pop("target", None)
        target = target if metric == primary else None
        surrogate = said.pop("surrogate", "surrogate" in str(said.get("kind")).lower())
        told = table.column_names if said.pop("nulls", False) else ()
        return cls._from_table(
            files.frame_of(table),
            told,
            nan=nan,
            columns={"trial": trial, "time": time, "seconds": seconds, "config": config},
            name=name,
            metric=metric,
            mode=mode,
            modes=modes,
            target=target,
            surrogate=surrogate,
            description=said,
        )

    @classmethod
    def from_csv(
        cls,
        path: str | os.PathLike[str],
        *,
        metric: str | None = None,
        mode: str | None = None,
        name: str | None = None,
        modes: Mapping[str, str] | None = None,
        target: float | None = None,
        surrogate: bool = False,
        nan: NaN = "auto",
        trial: str | None = None,
        time: str | None = None,
        seconds: str | None = None,
        config: Iterable[str] = (),
        description: Mapping[str, Any] | None = None,
    ) -> Sweep:
        """A sweep from a CSV file, as trackers export it, with the keywords of `from_frame`.

        ::

            Sweep.from_csv("history.csv", metric="eval/loss", mode="min")

        An empty cell (also null, None, NA) was not reported; a cell "NaN" or "nan" is a value under
        "auto" too, as the file tells the two apart. (`DataFrame.to_csv` does not: it leaves NaN
        empty. Give such a frame to `from_frame`.) The separator may be ",", ";" or a tab, and the
        file compressed (.csv.gz).
        """
        return cls._from_table(
            files.csv_frame(path, trial),
            None,
            nan=nan,
            columns={"trial": trial, "time": time, "seconds": seconds, "config": config},
            name=name or _stem(path),
            metric=metric,
            mode=mode,
            modes=modes,
            target=target,
            surrogate=surrogate,
            description=description,
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
        nan: NaN = "auto",
        trial: str | None = None,
        time: str | None = None,
        seconds: str | None = None,
        config: Iterable[str] = (),
        description: Mapping[str, Any] | None = None,
    ) -> Sweep:
        """A sweep from a table with the columns that the module names, or a tracker's export.

        Rows of a trial are in order. None and `pd.NA` were not reported.

        Args:
            nan: what a NaN is. "value": it was reported, and the trial has diverged. "missing": it
                was not reported. "auto": a value in a column that has None or `pd.NA` too. Another
                column cannot tell NaN from an empty cell: there, a NaN was not reported in a row of
                another kind (it has metrics that never come together with this one), and in a
                trial most of whose rows lack the metric; but it is a value in rows whose other
                metrics mostly come with it, and where, after the last value, an evaluation was due
                (`recorded.holes` has the rule). `reading` says how many rows were taken for what.
            trial, time, seconds: the columns that name the trial, count its reports (whole numbers
                that grow; fractions, as of epochs, number the rows instead) and hold the seconds
                since it began. Default: `trial_id`, `training_iteration` and `time_total_s`, or
                the names that trackers give them ("run_id", "Name"; "_step", "step", "epoch";
                "_runtime"). Rows of a trial at the same time are one, if no metric is in several.
            config: columns of hyperparameters. Those that begin with "config/", "config." or
                "params." are too; and in an export, what is constant in each trial.

        In an export, text that changes within a trial and a tracker's own columns are left out.
        A table with a column "RUN - METRIC" for each run, or a row per value (run, step, key,
        value), is understood.

        Raises ValueError, with the row (counted from 0), on missing columns (named, and the
        parameter that takes them), repeated or falling iterations, text in a metric, time that
        runs backwards.
        """
        return cls._from_table(
            frame,
            (),
            nan=nan,
            columns={"trial": trial, "time": time, "seconds": seconds, "config": config},
            name=name,
            metric=metric,
            mode=mode,
            modes=modes,
            target=target,
            surrogate=surrogate,
            description=description,
        )

    @classmethod
    def _from_table(
        cls,
        frame: pd.DataFrame,
        told: Collection[str] | None,
        *,
        nan: NaN,
        columns: Mapping[str, Any],
        **own: Any,
    ) -> Sweep:
        """`told`: the columns whose NaN are known to be values; None: all."""
        _check_nan(nan)
        table, taken = arranged(frame, metric=own["metric"], **columns)
        names = metric_columns(table)
        absent, known = {}, set(names if told is None else told)
        for key in names:
            column = table[key]
            if isinstance(column.dtype, np.dtype) and column.dtype != object:
                continue
            empty = np.array([cell is None or cell is pd.NA for cell in column], dtype=bool)
            absent[key] = empty
            if empty.any():
                known.add(key)
        curves, guessed = cut(table, absent, nan=nan, surrogate=own["surrogate"], told=known)
        return cls(curves, taken=taken, guessed=guessed, **own)

    @classmethod
    def from_ray(
        cls,
        path: str | os.PathLike[str],
        *,
        metric: str | None = None,
        mode: str | None = None,
        name: str | None = None,
        target: float | None = None,
        nan: NaN = "auto",
        generation: int = 0,
    ) -> Sweep:
        """A sweep from a Ray Tune experiment folder, finished or not, local or remote (a URI).

        Reads `result.json` and `params.json` of each trial, and our journal; unpickles nothing.
        Metric and mode are those of the journal where they are not given; `reading` says so.

        A report is read as a rule read it live: None, text and an absent key are missing, a NaN is
        a value. `nan="missing"`: a NaN was not reported either.

        `generation`: which sweep, where the folder holds several: 0 is the newest, 1 the one before
        it.
        """
        from tune_stoppers.recorded.experiment import objective_at, read_experiment

        _check_nan(nan)
        curves = read_experiment(path, nan_is_missing=nan == "missing", generation=generation)
        name = name or os.fspath(path).rstrip("/").rpartition("/")[2]
        taken = ""
        if metric is None or mode is None:
            own_metric, own_mode = objective_at(path, generation)
            reported = any(own_metric in curve.metrics for curve in curves)
            if reported and metric in (None, own_metric) and (mode or own_mode):
                metric, mode = own_metric, mode or own_mode
                taken = f"Metric {metric} ({mode}), as the experiment's journal says."
        return cls(curves, name=name, metric=metric, mode=mode, target=target, taken=taken)


def _check_nan(nan: str) -> None:
    if nan not in ("auto", "value", "missing"):
        raise ValueError(f"nan must be 'auto', 'value' or 'missing', got {nan!r}.")


def _stem(path: str | os.PathLike[str]) -> str:
    return os.path.splitext(os.path.basename(path).removesuffix(".gz"))[0]
