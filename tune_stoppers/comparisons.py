"""What `AutoScheduler` compares: a sweep's trials, as its record and its model have them.

Whoever drives the sweep, Ray or a journal that is read again, is told the same.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from tune_stoppers.rules.sweep.expected_improvement import (
    CurvesRecord,
    ExpectedImprovement,
    Point,
)
from tune_stoppers.rules.sweep.rung import Times
from tune_stoppers.surrogate.acquisition.expected_improvement import (
    Comparison,
    Course,
    ExpectedImprovementAcquisition,
    Offer,
)
from tune_stoppers.surrogate.loss_scale import Curve, curve_of

FIRST = 4  # trials that start in the order given
LEAST_PROGRESS = 1e-3  # that a report counts as
PAUSED = "PAUSED"  # the status of a trial that waits for a worker
EXPECTED = (
    "expected to end at {expected:loss} ± {spread:.2g}; the best is {best:loss}; {chance:.1%} to "
    "pass it"
)

LEADS, AT_TARGET = "as the best so far; ", "trials end by themselves at a target: "

Curves = tuple[Curve, Curve | None]  # of the metric, and of what else the trial reports
Made = tuple[int, float, Times, Curves]  # from how many points, the newest at which time


class Candidate(Protocol):
    """A trial, as Ray's are."""

    @property
    def trial_id(self) -> str: ...

    @property
    def config(self) -> Mapping[str, Any]: ...

    @property
    def status(self) -> str: ...

    def is_finished(self) -> bool: ...


T = TypeVar("T", bound=Candidate)


class Said(NamedTuple, Generic[T]):
    """A comparison, and whom its places are."""

    compared: Comparison | None
    trials: list[T]  # new ones first
    new: int  # how many of them

    @property
    def error(self) -> float:
        """That of the comparison; 1 without one."""
        return self.compared.error if self.compared is not None else 1.0

    @property
    def misleads(self) -> bool:
        """Whether the model behind the comparison is no guide."""
        return self.compared is not None and self.compared.misleads


def compare(
    acquisition: ExpectedImprovementAcquisition,
    rule: ExpectedImprovement,
    record: CurvesRecord,
    new: Sequence[T],
    begun: Sequence[T],
    arriving: T | None = None,
    made: MutableMapping[str, Made] | None = None,
) -> Said[T]:
    """What a worker could do: now, or with the trial that has just come to a rung.

    Args:
        new: trials not started, in the order in which they were given.
        begun: all others, in that order.
        made: the curves of an earlier comparison, kept up to date.
    """
    made = {} if made is None else made
    known: list[T] = []
    courses: list[Course] = []
    awaited: list[Mapping[str, Any]] = []
    for trial in begun:
        if record.curves.get(trial.trial_id):
            known.append(trial)
            courses.append(_course(rule, record, trial, made))
        elif not trial.is_finished():
            awaited.append(trial.config)
    compared = None
    if not new or len(courses) + len(awaited) >= FIRST:
        start = rule.start_cost(record)
        compared = acquisition.compare(
            [trial.config for trial in new],
            courses,
            awaited,
            rungs=[time / rule.max_t for time in record.times],
            start=start / rule.max_t,
            resume=(rule.resume_cost(record) if record.resumes else start) / rule.max_t,
            picks=len(courses) + sum(course.passed for course in record.courses.values()),
            arriving=known.index(arriving) if arriving in known else None,
            least_gain=rule.least_of(len(new) + len(begun)),
            recoverable=record.saves,
        )
    return Said(compared, [*new, *known], len(new))


def text_of(offer: Offer) -> str:
    """What is said of an offer: `EXPECTED`, and why that is believed or counts."""
    return (AT_TARGET if offer.at_target else LEADS if offer.leads else "") + EXPECTED


def numbers_of(offer: Offer) -> dict[str, float]:
    """Those that `EXPECTED` tells."""
    return {
        "expected": offer.expected,
        "spread": offer.spread,
        "best": offer.best,
        "chance": offer.chance,
    }


def _course(
    rule: ExpectedImprovement,
    record: CurvesRecord,
    trial: Candidate,
    made: MutableMapping[str, Made],
) -> Course:
    trial_id = trial.trial_id
    points = record.curves[trial_id]
    known = made.get(trial_id)
    now = len(points), points[-1].time, record.times
    if known is None or known[:-1] != now:
        beside = record.signals.get(trial_id)
        also = _curve(rule, record, beside) if beside else None
        known = made[trial_id] = (*now, (_curve(rule, record, points), also))
    course, (curve, signal) = record.courses[trial_id], known[-1]
    return Course(
        config=trial.config,
        curve=curve,
        waits=course.paused and trial.status == PAUSED,
        runs=not trial.is_finished() and not course.paused,
        signal=signal,
        ended=trial_id in record.ended and not rule.is_whole(record, trial_id),
    )


def _curve(rule: ExpectedImprovement, record: CurvesRecord, points: Sequence[Point]) -> Curve:
    times, losses, bests = np.array(points, dtype=float).T
    progress = np.clip(times / rule.max_t, LEAST_PROGRESS, 1.0)
    return curve_of(progress, losses, bests, [time / rule.max_t for time in record.times])
