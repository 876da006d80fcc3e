"""Who came to each rung of a sweep, who was stopped there, and at which values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from tune_stoppers.report.data.story import Story, TrialStory


@dataclass(frozen=True)
class RungRow:
    """One rung. Values are those that trials had at their first report at it or after it."""

    step: float
    came: int  # trials with such a report
    stopped: int  # of these, stopped by a rule at that report
    best_stopped: float  # the best value with which one was; NaN: none, as the next
    worst_continued: float  # the worst value with which one was not
    later: int  # stopped after that report and before they came to the next rung
    reports: int  # of all trials, up to that report of each


def rungs_of(story: Story) -> list[RungRow]:
    """A row for each rung to which a trial came.

    In a dry run a trial counts as stopped where it would have been. A value that is not finite is
    the worst; where only such were stopped or continued, that value is NaN.
    """
    rungs = [*sorted(set(story.rungs)), math.inf]
    rows = [_row(story, rung, after) for rung, after in pairwise(rungs)]
    return [row for row in rows if row.came]


def _row(story: Story, rung: float, after: float) -> RungRow:
    there: dict[bool, list[float]] = {True: [], False: []}  # losses, by whether it was stopped
    later = reports = 0
    for trial in story.trials:
        first = next((i for i, (step, _) in enumerate(trial.curve) if step >= rung), None)
        if first is None:
            reports += len(trial.curve)
            continue
        reports += first + 1
        (step, value), end = trial.curve[first], _stopped_at(trial)
        there[end <= step].append(story.sign * value if math.isfinite(value) else math.inf)
        later += step < end < after
    return RungRow(
        step=rung,
        came=sum(map(len, there.values())),
        stopped=len(there[True]),
        best_stopped=_known(story.sign * min(there[True], default=math.nan)),
        worst_continued=_known(story.sign * max(there[False], default=math.nan)),
        later=later,
        reports=reports,
    )


def _stopped_at(trial: TrialStory) -> float:
    """The step at which a rule stopped the trial, or would have; infinity where none did."""
    if trial.would is not None:
        return trial.would.step
    return trial.curve[-1][0] if trial.ending.kind == "stopped" else math.inf


def _known(value: float) -> float:
    return value if math.isfinite(value) else math.nan
