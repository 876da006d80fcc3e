"""Runs as trackers keep them, a value per metric and step, and the learning curves they make."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tune_stoppers.recorded.table import LARGEST, MOST_SECONDS, Curve

DEEPEST = 8  # folders below the one that was named
MOST_FILES = 200_000  # looked at
CLOCK = ("training_iteration", "time_total_s", "time_this_iter_s")  # a curve has its own


class TrackerError(ValueError):
    """What was named does not hold what its kind of record should hold."""


@dataclass(slots=True)
class Run:
    """One run: what a tracker wrote down of it, in the order in which it did."""

    run_id: str
    name: str = ""
    config: dict[str, Any] = field(default_factory=dict)  # flat keys
    metrics: dict[str, dict[int, float]] = field(default_factory=dict)  # by name and step
    seconds: dict[str, dict[int, float]] = field(default_factory=dict)  # of those; since its start

    def report(self, step: int, metric: str, value: float, seconds: float | None = None) -> None:
        """Take in a value; at a step that had one, the newer replaces it."""
        if abs(step) > LARGEST:
            raise TrackerError(f"run {self.run_id!r}: step {step} of {metric} is beyond 2**53.")
        self.metrics.setdefault(metric, {})[step] = value
        if seconds is not None and 0 <= seconds <= MOST_SECONDS:
            self.seconds.setdefault(metric, {})[step] = seconds

    def rewind(self, metric: str, step: int) -> None:
        """Drop the values of `metric` from `step` on: the run began again from there."""
        for kept in (self.metrics.get(metric, {}), self.seconds.get(metric, {})):
            for later in [each for each in kept if each >= step]:
                del kept[later]


class Kept(NamedTuple):
    """What a tracker's files hold."""

    runs: list[Run]
    said: str  # what was taken for what, in sentences
    metric: str | None = None  # the objective, where the record says it
    mode: str | None = None
    name: str = ""  # of the study or experiment


def curves_of(
    runs: Sequence[Run], metric: str | None, *, nan_is_missing: bool = False
) -> tuple[list[Curve], str]:
    """A curve for each run, a row for each step, and a sentence on the runs that make none.

    A run that never reports `metric` makes none, if another one does: it is a sweep's parent, or
    something else that is kept in the same place.
    """
    told = [run for run in runs if any(run.metrics.values())]
    chosen = [run for run in told if metric is None or run.metrics.get(metric)] or told
    left_out = [
        (len(runs) - len(told), "without a value"),
        (len(told) - len(chosen), f"without {metric}"),
    ]
    words = [f"{count} {why}" for count, why in left_out if count]
    said = f"Left out, of {len(runs)} runs: {', '.join(words)}." if words else ""
    names = _names(chosen)
    return [_curve(run, names[run.run_id], nan_is_missing) for run in chosen], said


def _curve(run: Run, name: str, nan_is_missing: bool) -> Curve:
    steps = sorted({step for values in run.metrics.values() for step in values})
    row_of = {step: row for row, step in enumerate(steps)}
    columns, missing = {}, {}
    for metric, values in run.metrics.items():
        if not values or metric in CLOCK:  # Ray's count may be another than the tracker's
            continue
        column, absent = np.full(len(steps), np.nan), np.ones(len(steps), dtype=bool)
        rows = [row_of[step] for step in values]
        column[rows] = list(values.values())
        absent[rows] = False
        columns[metric] = column
        if nan_is_missing:
            absent |= np.isnan(column)
        if absent.any():
            missing[metric] = absent
    return Curve(
        trial_id=name,
        config={key: value for key, value in run.config.items() if value is not None},
        iterations=np.array(steps, dtype=np.int64),
        metrics=columns,
        seconds=_seconds(run, steps),
        missing=missing,
    )


def _seconds(run: Run, steps: Sequence[int]) -> Any:
    """Seconds at each step, None where none are known; between those known, at an even pace.

    A metric with one value, at step 0, may have been logged at the end, without a step: it says
    nothing of the pace where others do.
    """
    paces = [times for times in run.seconds.values() if list(times) != [0]]
    at: dict[int, float] = {}
    for times_of_metric in paces or run.seconds.values():
        for step, time in times_of_metric.items():
            at[step] = max(time, at.get(step, 0.0))
    known = sorted(at)
    if not known:
        return None
    times = np.maximum.accumulate([at[step] for step in known])
    if len(known) == len(steps):
        return times
    start = min(steps[0], 0)
    pace = times[-1] / (known[-1] - start) if known[-1] > start else 0.0
    inside = np.interp(steps, [start, *known], [0.0, *times])
    beyond = times[-1] + (np.array(steps) - known[-1]) * pace
    return np.where(np.array(steps) > known[-1], beyond, inside)


def _names(runs: Iterable[Run]) -> dict[str, str]:
    """What each run is called: by its name, or by its id where it shares the name."""
    runs = list(runs)
    shared = Counter(run.name for run in runs)
    ids = {run.run_id for run in runs}
    return {
        run.run_id: run.name
        if run.name and shared[run.name] == 1 and run.name not in ids - {run.run_id}
        else run.run_id
        for run in runs
    }


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Hyperparameters with flat keys, joined with "/"."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}/")
        elif isinstance(value, (bool, int, float, str)) or value is None:
            found[f"{prefix}{key}"] = value
        else:
            found[f"{prefix}{key}"] = str(value)
    return found


def files_in(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """The files in a folder and in those below it, in order; no link that leads out of it.

    `TrackerError` where there are too many to look at, as in a whole home folder.
    """
    top = Path(folder)
    inside = os.path.realpath(top) + os.sep
    count = 0
    for here, below, names in os.walk(top):
        below.sort()
        if len(Path(here).relative_to(top).parts) >= DEEPEST:
            below.clear()
        for name in sorted(names):
            count += 1
            if count > MOST_FILES:
                raise TrackerError(
                    f"{top} holds more than {MOST_FILES} files; name the folder of the runs in it."
                )
            path = Path(here, name)
            if not path.is_symlink() or os.path.realpath(path).startswith(inside):
                yield path
