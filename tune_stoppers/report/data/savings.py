"""What trials took, and what stopping them saved, told from their reports alone. Pure.

A process pays its start-up once: its first report takes as long as loading model and data, an
evaluation of the untrained model where there is one, and the training up to it. So what a stopped
trial had left is reckoned by its pace after that first report::

    saved = (horizon − last step) × seconds per step after the first report of each process

Horizon: the trial's own, by the `progress` that it reported, else the mean last step of those
trials that came to their own end and got as far. Pace: the trial's own, else the median of the
others'. Where nobody tells the one or the other, it is not known what was saved: NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from tune_stoppers.experiment.diverged import is_untrained
from tune_stoppers.metrics import lookup, number
from tune_stoppers.report.data.rows import (
    Row,
    at,
    durations,
    moments,
    processes,
    seconds,
)
from tune_stoppers.report.data.story import Kind
from tune_stoppers.report.data.totals import Cost, Interval

WHOLE = 1 + 1e-6  # the most that a share of a trial's own course comes to
CUT_SHORT = ("stopped", "unexplained")  # kinds of ending before a trial's own end


class TrialCourse(NamedTuple):
    """A trial's reports in the order recorded, those made again included, and how it ended."""

    rows: Sequence[Row]
    kind: Kind


def costs_of(courses: Sequence[TrialCourse], time_attr: str) -> list[Cost]:
    """What each trial of a sweep took and what stopping it saved, in the order given.

    Trials that failed or have not ended save nothing. Ended before its first report, a trial saves
    a whole run, start-up included.
    """
    trials, ends, startup = _known(courses, time_attr)
    reached = [end for end in ends if not math.isnan(end)]
    return [
        trial.cost(_goal(trial, end, reached), startup)
        for trial, end in zip(trials, ends, strict=True)
    ]


def horizons_of(courses: Sequence[TrialCourse], time_attr: str) -> list[float]:
    """The last steps of the trials that came to their own end, or that say where it is."""
    ends = _ends([_Trial.of(course, time_attr) for course in courses], time_attr)
    return sorted({round(end, 6) for end in ends if not math.isnan(end)})


def left_of(courses: Sequence[TrialCourse], time_attr: str) -> list[float]:
    """The seconds that each trial has left until its own end, by its pace; NaN: not known.

    Of one that has not reported: a start-up, and all its steps.
    """
    trials, ends, startup = _known(courses, time_attr)
    reached = [end for end in ends if not math.isnan(end)]
    return [
        _left(_goal(trial, end, reached), trial.last if trial.processes else 0.0) * trial.pace
        + (0.0 if trial.processes else startup)
        for trial, end in zip(trials, ends, strict=True)
    ]


def _known(
    courses: Sequence[TrialCourse], time_attr: str
) -> tuple[list[_Trial], list[float], float]:
    """The trials, what they do not tell filled in from the others; their ends; a start-up."""
    trials = [_Trial.of(course, time_attr) for course in courses]
    ends = _ends(trials, time_attr)
    pace, gap = _middle(trial.pace for trial in trials), _middle(trial.gap for trial in trials)
    trials = [trial.filled(pace, gap) for trial in trials]
    startup = _middle(trial.startups[0] for trial in trials if trial.startups)
    return trials, ends, startup


class _Leg(NamedTuple):
    """From one report that has a step to the next."""

    seconds: float  # NaN: not known
    step: float
    reports: int
    untrained: bool


class _Trial(NamedTuple):
    course: TrialCourse
    processes: list[list[_Leg]]
    taken: list[float]  # by each report; NaN: not known
    work: tuple[Interval, ...]
    pace: float  # seconds per step after the first report of each process
    gap: float  # steps from report to report

    @classmethod
    def of(cls, course: TrialCourse, time_attr: str) -> _Trial:
        legs: list[list[_Leg]] = []
        taken: list[float] = []
        work: list[Interval] = []
        before: Row = {}
        for process in processes(course.rows):
            own = durations(process, before)
            before = process[-1]
            taken += own
            untrained = [is_untrained(row, course.rows, time_attr) for row in process]
            legs.append(list(_legs(process, own, untrained, time_attr)))
            work += _work(process)
        legs = [process for process in legs if process]
        moves = [(a.step - b.step, a.seconds) for p in legs for b, a in pairwise(p)]
        timed = [(steps, time) for steps, time in moves if steps >= 0 and not math.isnan(time)]
        steps, time = sum(steps for steps, _ in timed), sum(time for _, time in timed)
        return cls(
            course=course,
            processes=legs,
            taken=taken,
            work=tuple(work),
            pace=time / steps if steps > 0 else math.nan,
            gap=_middle(steps for steps, _ in moves if steps > 0),
        )

    def filled(self, pace: float, gap: float) -> _Trial:
        """With the pace and the gap of the others where it has none itself."""
        own_pace, own_gap = self.pace, self.gap
        return self._replace(
            pace=pace if math.isnan(own_pace) else own_pace,
            gap=gap if math.isnan(own_gap) else own_gap,
        )

    @property
    def last(self) -> float:
        """The last step; NaN without one."""
        return self.processes[-1][-1].step if self.processes else math.nan

    @property
    def first(self) -> float:
        """The step at which training begins: that of the evaluation before it, if there is one."""
        begun = [leg.step for process in self.processes[:1] for leg in process if leg.untrained]
        return max(begun, default=0.0)

    @property
    def startups(self) -> list[float]:
        """Of each process, the part of its first report in which it did not train yet."""
        found = []
        for leg, steps in zip((p[0] for p in self.processes), self._first_steps(), strict=True):
            startup = leg.seconds - (self.pace * steps if steps else 0.0)
            found.append(startup if math.isnan(startup) else max(startup, 0.0))
        return found

    @property
    def steps(self) -> float:
        """All that it trained, what it made again included."""
        moves = [a.step - b.step for p in self.processes for b, a in pairwise(p)]
        first = [steps for steps in self._first_steps() if not math.isnan(steps)]
        return sum(first) + sum(steps for steps in moves if steps > 0)

    def _first_steps(self) -> Iterator[float]:
        """How far each process trained up to its first report; NaN where that is not known.

        From the last report before, or from 0; no further than the reports lie apart where the
        trial went back, or began from a state of another one, which its time gives away.
        """
        reached = 0.0
        for process in self.processes:
            leg = process[0]
            steps, near = leg.step - reached, self.gap * leg.reports
            if leg.untrained:
                steps = 0.0
            elif steps <= 0 or (steps > near and self.pace * steps > leg.seconds):
                steps = near
            yield steps
            reached = process[-1].step

    def cost(self, goal: float, startup: float) -> Cost:
        """Given the step at which it would have ended, and what a start-up takes in this sweep."""
        cut_short = self.course.kind in CUT_SHORT
        timed = [time for time in self.taken if not math.isnan(time)]
        left = saved = 0.0
        if cut_short:
            left = _left(goal, self.last if self.course.rows else 0.0)
            saved = left * self.pace if left else 0.0
            saved += 0.0 if self.course.rows else startup
        return Cost(
            spent=sum(timed) if timed or not self.taken else math.nan,
            startup=sum(self.startups),
            steps=self.steps,
            saved=saved,
            saved_steps=left,
            saved_reports=left / self.gap if left else 0.0,
            cut_short=cut_short,
            untimed=len(self.taken) - len(timed),
            work=self.work,
        )


def _legs(
    process: Sequence[Row], taken: Sequence[float], untrained: Sequence[bool], time_attr: str
) -> Iterator[_Leg]:
    """Reports without a step belong to the next one that has one."""
    time, reports = 0.0, 0
    for row, own, before in zip(process, taken, untrained, strict=True):
        time, reports = time + own, reports + 1
        step = at(row, time_attr)
        if math.isfinite(step):
            yield _Leg(time, step, reports, before)
            time, reports = 0.0, 0


def _work(process: Sequence[Row]) -> Iterator[Interval]:
    """When the process was at work, in as few intervals as may be."""
    begin = end = math.nan
    for row, moment in zip(process, moments(process), strict=False):  # or none is known
        start = moment - seconds(row)
        if start <= end + 1e-6:
            end = moment
            continue
        if not math.isnan(end):
            yield begin, end
        begin, end = start, moment
    if not math.isnan(end):
        yield begin, end


def _ends(trials: Sequence[_Trial], time_attr: str) -> list[float]:
    """Where each trial ends that nobody cuts short; NaN where it does not tell."""
    told = [_progress(row) for trial in trials for row in trial.course.rows]
    # some report a `progress` of their own, in per cent for example
    shares = not any(progress < 0 or progress > WHOLE for progress in told if progress is not None)
    return [
        trial.last
        if trial.course.kind == "finished"
        else _by_progress(trial, time_attr)
        if shares
        else math.nan
        for trial in trials
    ]


def _by_progress(trial: _Trial, time_attr: str) -> float:
    """The step at which the trial's own progress would be 1; NaN where it does not say."""
    for row in reversed(trial.course.rows):
        step, progress = at(row, time_attr), _progress(row)
        if progress is not None and progress > 0 and math.isfinite(step):
            whole = trial.first + (step - trial.first) / progress
            return 1.0 if time_attr == "progress" else whole
    return math.nan


def _left(goal: float, last: float) -> float:
    left = goal - last
    return left if math.isnan(left) else max(left, 0.0)


def _goal(trial: _Trial, own: float, ends: Sequence[float]) -> float:
    """Where the trial would have ended; NaN where nobody tells."""
    if not math.isnan(own):
        return own
    last = trial.last if trial.processes else 0.0
    as_far = [end for end in ends if end >= last]
    return sum(as_far) / len(as_far) if as_far else math.nan


def _progress(row: Row) -> float | None:
    return number(lookup(row, "progress"))


def _middle(values: Iterable[float]) -> float:
    """The median of those values that are not NaN; NaN if there are none."""
    known = [value for value in values if not math.isnan(value)]
    return median(known) if known else math.nan
