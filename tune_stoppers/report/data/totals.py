"""What a trial took and what stopping it saved, as plain data, and the sums over a sweep."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

Interval = tuple[float, float]  # begin and end, in seconds


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one trial. Times are seconds, or whatever the sweep is counted in; NaN: not known."""

    spent: float = 0.0  # time of its processes, work made again included
    startup: float = 0.0  # the part of it before a process trains
    steps: float = 0.0  # trained, those made again included
    saved: float = 0.0  # time; 0 where the trial was not cut short
    saved_steps: float = 0.0
    saved_reports: float = 0.0
    cut_short: bool = False  # somebody ended it before its own end
    untimed: int = 0  # reports that do not say what they took
    work: tuple[Interval, ...] = ()  # when it was at work; empty where the reports do not say


@dataclass(frozen=True)
class Totals:
    """Of a sweep. What is not known of a trial is in no sum."""

    spent: float
    startup: float  # NaN: known of no trial
    steps: float
    saved: float
    saved_steps: float
    cut_short: int  # trials that somebody ended before their own end
    unknown: int  # of these, trials whose saved time is not known
    untimed: int  # reports that do not say what they took
    wall: float  # from the first start to the last report; 0 where the reports do not say
    idle: float  # of it, without any trial at work

    @classmethod
    def of(cls, costs: Iterable[Cost]) -> Totals:
        """The sums."""
        costs = list(costs)
        startups = [cost.startup for cost in costs if cost.spent > 0]
        cut_short = [cost for cost in costs if cost.cut_short]
        wall, idle = _wall(interval for cost in costs for interval in cost.work)
        return cls(
            spent=known(cost.spent for cost in costs),
            startup=math.nan if all(map(math.isnan, startups)) else known(startups),
            steps=known(cost.steps for cost in costs),
            saved=known(cost.saved for cost in costs),
            saved_steps=known(cost.saved_steps for cost in costs),
            cut_short=len(cut_short),
            unknown=sum(math.isnan(cost.saved) for cost in cut_short),
            untimed=sum(cost.untimed for cost in costs),
            wall=wall,
            idle=idle,
        )

    @property
    def share(self) -> float:
        """Saved time, of that and the time spent; NaN where nothing was spent or it is unknown."""
        return math.nan if self.all_unknown else _share(self.saved, self.spent)

    @property
    def share_of_steps(self) -> float:
        """The same in steps."""
        return _share(self.saved_steps, self.steps)

    @property
    def all_unknown(self) -> bool:
        """Whether trials were cut short, and of none of them it is known what that saved."""
        return 0 < self.cut_short == self.unknown


def known(values: Iterable[float]) -> float:
    """The sum of those values that are not NaN."""
    return sum(value for value in values if not math.isnan(value))


def _share(saved: float, spent: float) -> float:
    stake = spent + saved
    return saved / stake if 0 < stake < math.inf else math.nan


def _wall(intervals: Iterable[Interval]) -> tuple[float, float]:
    """The time from the first begin to the last end, and how much of it no interval covers."""
    ordered = sorted(intervals)
    if not ordered:
        return 0.0, 0.0
    reached, idle = ordered[0][0], 0.0
    for begin, end in ordered:
        idle += max(begin - reached, 0.0)
        reached = max(reached, end)
    return reached - ordered[0][0], idle
