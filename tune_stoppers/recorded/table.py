"""From a table of reports to checked learning curves, one per trial."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from tune_stoppers.recorded.holes import Bools as Bools
from tune_stoppers.recorded.holes import Ints as Ints
from tune_stoppers.recorded.holes import holes

Floats = npt.NDArray[np.float64]
NaN = Literal["auto", "value", "missing"]  # what a NaN in a table means

CONFIG = "config/"
LARGEST = 2.0**53  # iteration: beyond, floats do not tell one from the next
MOST_SECONDS = 1e12  # of a trial: with far more, sums overflow
KEYS = ("trial_id", "training_iteration", "step", "time_total_s")


@dataclass(frozen=True, slots=True)
class Curve:
    """One trial as it was recorded: column arrays of equal length, a row per report."""

    trial_id: str
    config: dict[str, Any]  # flat: {"model/width": 64}
    iterations: Ints
    metrics: dict[str, Floats]
    steps: Floats | None = None  # in the sweep's own unit
    seconds: Floats | None = None  # since the trial began
    missing: dict[str, Bools] = field(default_factory=dict)  # rows that do not carry the metric

    def __len__(self) -> int:
        return len(self.iterations)

    def losses(self, metric: str, mode: str) -> Floats:
        """The metric with lower better; what is not a finite number is infinitely bad."""
        values = self.metrics.get(metric, np.full(len(self), np.nan))
        return np.where(np.isfinite(values), values if mode == "min" else -values, np.inf)

    def durations(self) -> Floats:
        """Seconds that each report took; 1 each where no times were recorded."""
        if self.seconds is None:
            return np.ones(len(self))
        return np.diff(self.seconds, prepend=0.0)

    def rows(self) -> list[dict[str, Any]]:
        """What the trial reported, row by row, with flat keys; times as Ray would add them."""
        rows = Rows(self)
        return [rows[row] for row in range(len(self))]


class Rows:
    """`Curve.rows`, each made when it is asked for: most trials never come to their last one."""

    __slots__ = ("_columns", "_missing", "iterations")

    def __init__(self, curve: Curve) -> None:
        durations = curve.durations()
        seconds = np.cumsum(durations) if curve.seconds is None else curve.seconds
        self.iterations: list[int] = curve.iterations.tolist()
        columns: dict[str, list[Any]] = {"training_iteration": self.iterations}
        if curve.steps is not None:
            columns["step"] = curve.steps.tolist()
        columns |= {name: values.tolist() for name, values in curve.metrics.items()}
        columns |= {"time_total_s": seconds.tolist(), "time_this_iter_s": durations.tolist()}
        self._columns = tuple(columns.items())
        self._missing = curve.missing

    def __len__(self) -> int:
        return len(self.iterations)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = {name: values[index] for name, values in self._columns}
        for name, absent in self._missing.items():
            if absent[index]:
                del row[name]
        return row


def metric_columns(frame: pd.DataFrame) -> list[str]:
    """The columns that are neither keys nor hyperparameters."""
    return [c for c in frame.columns if c not in KEYS and not str(c).startswith(CONFIG)]


def _fail(row: int, trial_id: str, what: str) -> None:
    raise ValueError(f"row {row} (trial {trial_id!r}): {what}")


def cut(
    frame: pd.DataFrame,
    absent: Mapping[str, Bools],
    *,
    nan: NaN,
    surrogate: bool,
    told: Collection[str] = (),
) -> tuple[list[Curve], dict[str, int]]:
    """Validate the table and cut it into one curve per trial, in order of first appearance.

    `absent`: the cells known to be empty, by metric. `told`: the metrics of which every other NaN
    is known to be a value. Beside the curves: how many NaN `holes` took for empty, by metric.
    """
    names = metric_columns(frame)
    if not names:
        raise ValueError("the sweep has no metric column beside trial_id and training_iteration.")
    if frame.empty:
        raise ValueError("the sweep is empty: no rows.")
    named = frame["trial_id"]
    if named.dtype == object:  # 1 and "1" are one trial
        named = named.map(str, na_action="ignore")
    codes, ids = pd.factorize(named)
    if (codes < 0).any():
        raise ValueError(f"row {int(np.argmax(codes < 0))}: trial_id is missing.")
    trials = [str(trial_id) for trial_id in ids]
    order = np.argsort(codes, kind="stable")  # trials may be interleaved; rows keep their order
    same = codes[order][1:] == codes[order][:-1]  # this row and the one before: one trial

    iterations = _iterations(frame, trials, codes, order, same)
    metrics = {name: _numbers(frame, name, absent.get(name), trials, codes) for name in names}
    starts = np.searchsorted(codes[order], np.arange(len(trials) + 1))
    parts = [order[begin:end] for begin, end in pairwise(starts)]
    missing = {name: absent.get(name, np.zeros(len(frame), dtype=bool)) for name in names}
    guessed: dict[str, int] = {}
    there = np.column_stack([~np.isnan(values) for values in metrics.values()])
    for column, name in enumerate(names):
        unclear = ~there[:, column] & ~missing[name]
        if nan == "value" or not unclear.any():
            continue
        if nan == "auto":
            if name in told:
                continue
            others = np.delete(there, column, axis=1)
            unclear &= holes(there[:, column], others, iterations, parts)
            guessed[name] = int(unclear.sum())
        missing[name] = missing[name] | unclear
    steps = _numbers(frame, "step", None, trials, codes) if "step" in frame.columns else None
    seconds = None
    if "time_total_s" in frame.columns:
        seconds = _numbers(frame, "time_total_s", None, trials, codes)
    configs = _configs(frame, order[starts[:-1]], codes, trials)

    curves = []
    for index, trial_id in enumerate(trials):
        rows = parts[index]
        curves.append(
            Curve(
                trial_id=trial_id,
                config=configs[index],
                iterations=iterations[rows],
                metrics={name: values[rows] for name, values in metrics.items()},
                steps=None if steps is None else steps[rows],
                seconds=_elapsed(seconds, rows, iterations[rows], trial_id, surrogate),
                missing={n: m[rows] for n, m in missing.items() if m[rows].any()},
            )
        )
    return curves, guessed


def _numbers(
    frame: pd.DataFrame,
    name: str,
    absent: Bools | None,
    trials: list[str],
    codes: Ints,
) -> Floats:
    column = frame[name]
    try:
        numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    except OverflowError as error:
        raise ValueError(f"{name} has an integer that is too large for a float.") from error
    if pd.api.types.is_numeric_dtype(column.dtype):
        return numbers
    for row, cell in enumerate(column):
        if cell is None or cell is pd.NA or (absent is not None and absent[row]):
            continue
        if isinstance(cell, (str, bytes)) or (math.isnan(numbers[row]) and cell == cell):
            what = f"{name} must be a number, got {cell!r}; drop the column or fix the cell."
            _fail(row, trials[codes[row]], what)
    return numbers


def _iterations(
    frame: pd.DataFrame,
    trials: list[str],
    codes: Ints,
    order: Ints,
    same: Bools,
) -> Ints:
    numbers = _numbers(frame, "training_iteration", None, trials, codes)
    broken = ~((np.abs(numbers) <= LARGEST) & (numbers == np.floor(numbers)))
    if broken.any():
        row = int(np.argmax(broken))
        got = frame["training_iteration"].iloc[row]
        what = f"training_iteration must be a whole number of at most 2**53, got {got}."
        _fail(row, trials[codes[row]], what)
    falling = np.flatnonzero(same & (np.diff(numbers[order]) <= 0))
    if falling.size:
        row, before = int(order[falling[0] + 1]), int(order[falling[0]])
        now, then = int(numbers[row]), int(numbers[before])
        what = (
            f"training_iteration {now} is there twice (also in row {before})."
            if now == then
            else f"training_iteration must grow within a trial, got {now} after {then} in "
            f"row {before}; sort the rows, and of a repeated stretch keep one."
        )
        _fail(row, trials[codes[row]], what)
    return numbers.astype(np.int64)


def _elapsed(
    seconds: Floats | None,
    rows: Ints,
    iterations: Ints,
    trial_id: str,
    surrogate: bool,
) -> Floats | None:
    """Seconds since the trial began. Gaps are filled at an even pace; those of a surrogate, whose
    predictions may fall, by their running maximum."""
    if seconds is None:
        return None
    times = seconds[rows]
    known = np.isfinite(times)
    if not known.any():
        return None
    largest = int(np.argmax(np.where(known, np.abs(times), 0.0)))
    if abs(times[largest]) > MOST_SECONDS:
        what = f"time_total_s must be at most {MOST_SECONDS:g}, got {times[largest]:g}."
        _fail(int(rows[largest]), trial_id, what)
    if not known.all():
        at = np.concatenate([[0], iterations[known]])
        passed = np.concatenate([[0.0], times[known]])
        pace = passed[-1] / at[-1] if at[-1] else 0.0  # histories count from 0
        beyond = passed[-1] + (iterations - at[-1]) * pace
        filled = np.where(iterations > at[-1], beyond, np.interp(iterations, at, passed))
        times = np.where(known, times, filled)
    if surrogate:
        return np.maximum.accumulate(times)
    backwards = np.flatnonzero(np.diff(times, prepend=0.0) < 0)
    if backwards.size:
        at_row = int(backwards[0])
        then = times[at_row - 1] if at_row else 0.0
        what = f"time_total_s runs backwards, from {then:g} to {times[at_row]:g}."
        _fail(int(rows[at_row]), trial_id, what)
    return times


def _configs(
    frame: pd.DataFrame,
    first: Ints,
    codes: Ints,
    trials: list[str],
) -> list[dict[str, Any]]:
    """One configuration per trial: columns `config/…`, empty cells left out."""
    configs: list[dict[str, Any]] = [{} for _ in trials]
    for column in frame.columns:
        if not str(column).startswith(CONFIG):
            continue
        cells = frame[column]
        kinds = pd.factorize(cells.astype(str))[0]
        changed = kinds != kinds[first][codes]
        if changed.any():
            row = int(np.argmax(changed))
            was = cells.iloc[int(first[codes[row]])]
            what = f"{column} must not change within a trial, got {cells.iloc[row]} after {was}."
            _fail(row, trials[codes[row]], what)
        values = cells.iloc[first]
        empty = values.isna().to_numpy()
        for index, value in enumerate(values.tolist()):
            if not empty[index]:
                configs[index][str(column)[len(CONFIG) :]] = value
    return configs
