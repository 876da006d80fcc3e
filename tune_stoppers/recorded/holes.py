"""Which NaN of a table are empty cells: a data frame of floats writes both in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

MOST = 0.5  # of the rows: a metric that is in more of them is expected in each


def holes(there: Bools, others: Bools, times: Ints, trials: Sequence[Ints]) -> Bools:
    """The rows that did not report a metric, among those where it is NaN; the rest diverged.

    How a trial reports the metric is learnt from its rows between the first value and the last, or,
    where it has fewer than two values, from those of all trials. Then, for a NaN:

    - It comes before the trial's first value, or, in a trial without one, before the latest first
      value of the others: an empty cell. Evaluations had not begun.
    - The row has another metric that never comes together with this one: an empty cell. So are the
      training rows of a history in which training and evaluations have rows of their own.
    - The metric is in most of the other rows: a diverged value.
    - The row has a metric that mostly comes together with this one (`eval/runtime`): diverged.
    - Else it is an empty cell, unless no value follows and an evaluation was due: at the first such
      row as long after the last evaluation as two of them ever were apart, twice as long after it,
      and so on. Those have diverged.

    A metric that no trial has a value of has diverged everywhere.

    Args:
        there: whether the metric is a number, by row.
        others: whether the other metrics are there, by row and metric.
        times: the iteration of each row.
        trials: the rows of each trial, in order.
    """
    empty = np.zeros(len(there), dtype=bool)
    if not there.any():
        return empty
    pooled = _habit(there, others, times, trials)
    for rows in trials:
        if there[rows].all():
            continue
        habit = pooled
        if np.count_nonzero(there[rows]) > 1:
            habit = _habit(there, others, times, [rows])
        empty[rows] = habit.empty(there[rows], others[rows], times[rows])
    return empty


@dataclass(frozen=True)
class _Habit:
    """How trials report a metric."""

    apart: Bools  # by other metric: never comes together with this one
    together: Bools  # mostly does
    dense: bool  # the metric is in most rows that could have it
    first: float  # the latest first evaluation of a trial, in iterations
    gap: float  # the longest distance between two evaluations of a trial; infinite: unknown

    def empty(self, there: Bools, others: Bools, times: Ints) -> Bools:
        """The rows of one trial that did not report it."""
        values = np.flatnonzero(there)
        begun = times >= (times[values[0]] if len(values) else self.first)
        unclear = ~there & begun & ~others[:, self.apart].any(axis=1)
        diverged = unclear & (self.dense | others[:, self.together].any(axis=1))
        after = np.arange(len(there)) > (values[-1] if len(values) else -1)
        if not (diverged & after).any():
            last = float(times[values[-1]]) if len(values) else None
            diverged |= self._due(unclear & after, times, last)
        return np.asarray(~there & ~diverged)

    def _due(self, open_rows: Bools, times: Ints, last: float | None) -> Bools:
        """Of the open rows after the last evaluation, those at which one was due."""
        due = np.zeros(len(times), dtype=bool)
        next_due = self.first if last is None else last + self.gap
        for row in np.flatnonzero(open_rows):
            if times[row] >= next_due:
                due[row] = True
                next_due = float(times[row]) + self.gap
        return due


def _habit(there: Bools, others: Bools, times: Ints, trials: Sequence[Ints]) -> _Habit:
    known = []
    for rows in trials:
        values = np.flatnonzero(there[rows])
        if len(values):
            known.append(rows[values[0] : values[-1] + 1])
    stretch = np.concatenate(known)
    seen, beside = there[stretch], others[stretch]
    apart = np.asarray(beside.any(axis=0) & ~(beside & seen[:, None]).any(axis=0))
    # how often there is a value is counted after the first one, which every trial has
    later = np.concatenate([np.arange(len(rows)) > 0 for rows in known])
    own = later & ~beside[:, apart].any(axis=1)  # rows that could have it
    seen, beside = seen[own], beside[own]
    both = (beside & seen[:, None]).sum(axis=0)
    evaluations = [times[part][there[part]] for part in known]
    gaps = [float(np.diff(at).max()) for at in evaluations if len(at) > 1]
    return _Habit(
        apart=apart,
        together=both > MOST * beside.sum(axis=0),
        dense=bool(seen.mean() > MOST) if len(seen) else True,
        first=max(float(at[0]) for at in evaluations),
        gap=max(gaps, default=np.inf),
    )
