"""What a rule remembers of an Optuna study, folded out of what the study's storage holds.

Optuna keeps a trial's intermediate values by step, without saying when they came. A rule that looks
across trials depends on their order, so the pruner writes the time of each report beside it, into
the trial's own attributes (`STAMP`), where no other process writes. The time is this machine's, or
just after the newest that the storage has, if that is later: what a process has seen comes before
what it reports, whatever the clocks say. Every process that opens the storage folds the same
reports in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from tune_stoppers.core import Action, Decision, Report, Rule, SweepRule
from tune_stoppers.core.track import Track

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

REPORTED = "tune_stoppers:reported:"  # and a number: when reports came, by their steps
TOGETHER = 64  # reports in one attribute, which is written again with each of them
TICK = 1e-6  # seconds
BEGINNING = datetime(1970, 1, 1)
KEPT_TRACKS = 64  # trials that run at a time; of others the values are folded again


class Event(NamedTuple):
    """A report (`step`), or the end of a trial (None); sorted by time."""

    time: float  # seconds since 1970, in Optuna's local time
    number: int  # of the trial
    is_end: bool
    step: int | None


class TrialFold:
    """A rule for one trial: its state is that of the trial's values, in the order of steps."""

    def __init__(self, rule: Rule, sign: int) -> None:
        self._rule, self._sign = rule, sign
        self._tracks: dict[int, tuple[Track, list[int]]] = {}  # by trial number, the newest last

    def judge(self, trial: FrozenTrial) -> Decision:
        """The decision on the newest value of `trial`."""
        steps = sorted(trial.intermediate_values)
        track, folded = self._tracks.pop(trial.number, (Track(self._rule), []))
        if steps[: len(folded)] != folded:  # a value came late, for an earlier step
            track, folded = Track(self._rule), []
        decision = self._rule.verdict(track.state)
        for step in steps[len(folded) :] or steps[-1:]:
            decision = track.update(report_of(trial, step, self._sign)).decision
        self._tracks[trial.number] = (track, steps)
        if len(self._tracks) > KEPT_TRACKS:
            del self._tracks[next(iter(self._tracks))]
        return decision


class SweepFold:
    """A rule across trials: its record is that of all reports and ends, in the order of time."""

    def __init__(self, rule: SweepRule[Any], sign: int) -> None:
        self._rule, self._sign = rule, sign
        self._begin()

    def _begin(self) -> None:
        self._record = self._rule.init()
        self._newest = Event(-math.inf, -1, False, None)
        self._folded: dict[int, int] = {}  # by trial number, its newest step
        self._over: set[int] = set()  # trials whose end was folded
        self._decisions: dict[int, Decision] = {}

    def next_time(self, trials: Sequence[FrozenTrial]) -> float:
        """The time of a report that comes now, after all that `trials` have."""
        newest = max((event.time for event in self._news(trials)), default=-math.inf)
        return max(_seconds(datetime.now()), newest + TICK, self._newest.time + TICK)

    def judge(self, trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> Decision:
        """The decision on the newest value of `trial`, which is one of `trials`."""
        news = self._news(trials)
        if news and news[0] < self._newest:  # another process was about to write it
            self._begin()
            news = self._news(trials)
        by_number = {each.number: each for each in trials}
        for event in news:
            self._fold(event, by_number[event.number])
            self._newest = event
        return self._decisions.get(trial.number) or self._rule.keep("nothing to judge yet")

    def _news(self, trials: Sequence[FrozenTrial]) -> list[Event]:
        """What happened and is not folded yet, in order."""
        return sorted(
            event
            for trial in trials
            if trial.number not in self._over
            for event in events_of(trial)
            if event.step is None or event.step > self._folded.get(trial.number, -1)
        )

    def _fold(self, event: Event, trial: FrozenTrial) -> None:
        rule, record, number = self._rule, self._record, trial.number
        if event.step is not None:
            self._folded[number] = event.step
            report = report_of(trial, event.step, self._sign)
            if rule.judges(report):
                self._decisions[number] = rule.update(record, report)
            return
        self._over.add(number)
        decision = self._decisions.pop(number, None)
        if trial.state.name == "FAIL":
            rule.lost(record, str(number))
        elif trial.last_step is None:
            rule.unjudged(record, str(number), None)
        else:
            last = report_of(trial, trial.last_step, self._sign)
            stopped = decision is not None and decision.action is Action.STOP
            sound = last.loss is not None and math.isfinite(last.loss)
            if trial.state.name == "COMPLETE" and sound and not stopped:
                rule.finished(record, str(number))
            rule.ended(record, last)


def events_of(trial: FrozenTrial) -> list[Event]:
    """The reports of a trial and its end, in order; a report without a time is not there yet.

    One that was made without asking whether to prune has the time of the next one that has, or of
    the trial's end; of one that failed it is left out.
    """
    number, known_times = trial.number, times_of(trial)
    times = {step: known_times.get(str(step)) for step in sorted(trial.intermediate_values)}
    end = None
    if trial.state.is_finished() and trial.datetime_complete is not None:
        known = (time for time in times.values() if time is not None)
        end = max([_seconds(trial.datetime_complete), *known])
    events = [] if end is None else [Event(end, number, True, None)]
    later = end if trial.state.name != "FAIL" else None
    for step in reversed(times):
        time = times[step]
        later = later if time is None else float(time) if later is None else min(time, later)
        if later is not None:
            events.append(Event(later, number, False, step))
    return events[::-1]


def times_of(trial: FrozenTrial) -> dict[str, float]:
    """When reports came, by their steps, as far as it was written down."""
    found: dict[str, float] = {}
    for key, times in trial.system_attrs.items():
        if key.startswith(REPORTED):
            found |= times
    return found


def with_time(trial: FrozenTrial, time: float) -> tuple[str, dict[str, float]]:
    """The attribute, and its new value, that says that the newest report came at `time`."""
    key = f"{REPORTED}{len(times_of(trial)) // TOGETHER}"
    return key, {**trial.system_attrs.get(key, {}), str(trial.last_step): time}


def report_of(trial: FrozenTrial, step: int, sign: int) -> Report:
    """What the rule sees of the value at `step`."""
    value = trial.intermediate_values[step]
    return Report(str(trial.number), step, sign * (math.nan if value is None else float(value)))


def _seconds(time: datetime) -> float:
    """Optuna's times are local and without a zone: every process is to read the same number."""
    return (time - BEGINNING).total_seconds()
