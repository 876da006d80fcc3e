"""The story of a replay: a recorded sweep as a scheduler and a stopper would have run it."""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Iterator, Sequence

from tune_stoppers.backtest.replay import ReplayResult
from tune_stoppers.backtest.trial import Entry, ReplayTrial
from tune_stoppers.metrics import sign_of
from tune_stoppers.recorded.table import Curve
from tune_stoppers.report.data.story import (
    EXTRAS,
    Ending,
    Event,
    Opening,
    Points,
    Span,
    Story,
    TrialStory,
    best_point,
)
from tune_stoppers.report.terminal.tables import number

OPENS = ("start", "resume", "restart")
CLOSES = ("pause", "stop", "finish", "fail", "retry")
BASIS = "Saved: the work of running every trial of the record once, less the work of this replay."
SURROGATE = "The record is a surrogate: predictions of a model, not recorded runs."
STALLED = "It ended because the scheduler started nothing more: in Ray this sweep would hang."


def replay_story(
    result: ReplayResult, *, rule: str = "no stopping", rungs: Sequence[float] = ()
) -> Story:
    """The story of a replay. `rule`: what was replayed, in words; `rungs`: its steps, if any."""
    entries: dict[str, list[Entry]] = {}
    for entry in result.cluster.journal:
        entries.setdefault(entry.trial_id, []).append(entry)
    times: dict[str, dict[int, float]] = {}  # of the newest run of each row
    for time, trial, row in result.cluster.log:
        times.setdefault(trial.trial_id, {})[row] = time
    trials = tuple(
        _trial(result, trial, entries.get(trial.trial_id, []), times.get(trial.trial_id, {}))
        for trial in result.cluster.trials
    )
    return Story(
        name=result.sweep.name,
        source="replay",
        place=result.sweep.name,
        rule=rule,
        metric=result.metric,
        mode=result.mode,
        time_attr="training_iteration",
        clock="s" if result.costs.unit == "seconds" else "reports",
        trials=trials,
        basis=BASIS,
        saved_share=result.savings,
        rungs=tuple(rungs),
        facts=tuple(_facts(result)),
        standing=tuple(_standing(trials)),
        notes=tuple(_notes(result)),
        unstopped=unstopped(result) if any(trial.cut_short for trial in trials) else (),
    )


def unstopped(result: ReplayResult) -> Points:
    """The best so far against time had every trial run to its end, in the order of the replay.

    On as many workers, each trial on the first that is free, without faults. The last point is the
    end of the last trial. Empty where no value is finite.
    """
    free = [0.0] * result.cluster.workers
    reports: list[tuple[float, float]] = []  # time, loss
    sign, costs, every = sign_of(result.mode), result.costs, result.checkpoint_every
    for trial in result.cluster.trials:
        course, time = trial.curve, heapq.heappop(free) + costs.start
        values = dict(_points(course, result.metric, range(len(course))))
        for step, cost in zip(course.iterations.tolist(), costs.of(course), strict=True):
            time += cost + (costs.save if every and step % every == 0 else 0.0)
            reports.append((time, sign * values.get(float(step), math.nan)))
        heapq.heappush(free, time)
    best, found = math.inf, []
    for time, loss in sorted(reports):
        if loss < best and math.isfinite(loss):
            best = loss
            found.append((time, sign * loss))
    return (*found, (max(free), found[-1][1])) if found else ()


def _trial(
    result: ReplayResult, trial: ReplayTrial, entries: Sequence[Entry], times: dict[int, float]
) -> TrialStory:
    course, costs = trial.curve, result.costs.of(trial.curve)
    rows = sorted(times)
    curve = _points(course, result.metric, rows)
    last = rows[-1] if rows else -1
    step, value = best_point(curve, result.mode)
    spans = tuple(_spans(entries, result.cluster.now))
    where = {int(course.iterations[row]): time for row, time in times.items()}
    return TrialStory(
        trial_id=trial.trial_id,
        config=dict(course.config),
        curve=curve,
        times=tuple(where[int(step)] for step, _ in curve),
        ending=_ending(result, trial, entries),
        best_step=step,
        best_value=value,
        last_step=float(course.iterations[last]) if rows else math.nan,
        reports=len(trial.reported),
        spent=sum(span.end - span.begin for span in spans),
        startup=math.nan,  # the record does not tell it apart
        steps=float(len(trial.reported)),
        saved=sum(costs[last + 1 :]),
        saved_steps=float(len(course) - 1 - last),
        saved_reports=len(course) - 1 - last,
        cut_short=last + 1 < len(course),
        work=tuple((span.begin, span.end) for span in spans),
        untrained=_untrained(course),
        extras={key: _points(course, key, rows) for key in EXTRAS if key in course.metrics},
        beyond=_points(course, result.metric, range(last, len(course))) if rows else (),
        spans=spans,
        events=tuple(
            Event(entry.time, entry.step, entry.action, f"by the {entry.by}")
            for entry in entries
            if entry.action in ("pause", "retry", "fail")
        ),
    )


def _untrained(course: Curve) -> float:
    """The last iteration at which the model had not trained yet."""
    steps, iterations = course.steps, course.iterations
    if steps is None or (steps == iterations - 1).all():  # it counts its reports from 0
        return -math.inf
    return float(max(iterations[steps == 0], default=-math.inf))


def _points(course: Curve, metric: str, rows: Sequence[int]) -> Points:
    absent = course.missing.get(metric)
    values = course.metrics.get(metric)
    if values is None:
        return ()
    return tuple(
        (float(course.iterations[row]), float(values[row]))
        for row in rows
        if absent is None or not absent[row]
    )


def _spans(entries: Sequence[Entry], now: float) -> Iterator[Span]:
    """From a start to whatever took the worker away; what still runs does so to the end."""
    opened: Entry | None = None
    for entry in entries:
        if entry.action in OPENS:
            opened = entry
        elif entry.action in CLOSES and opened is not None:
            yield _span(opened, entry.time)
            opened = None
    if opened is not None:
        yield _span(opened, now)


def _span(opened: Entry, end: float) -> Span:
    openings: dict[str, Opening] = {"start": "start", "resume": "resume"}
    return Span(opened.time, end, "", openings.get(opened.action, "restart"), opened.step)


def _ending(result: ReplayResult, trial: ReplayTrial, entries: Sequence[Entry]) -> Ending:
    by = result.cluster.ended_by.get(trial.trial_id, "")
    said = next((entry.reason for entry in reversed(entries) if entry.reason), "")
    if by and by != "error" and len(trial.curve) - 1 in trial.reported:
        return Ending("finished", "ran to the last step", said or "ran its recorded course")
    if by == "error":
        return Ending("failed", "failed", "its process died more often than it was tried again")
    if not by:
        if not trial.reported:
            return Ending("unfinished", "never started", "the replay ended before its turn")
        return Ending("unfinished", "unfinished", f"{trial.status.lower()} when the replay ended")
    match = re.match(r"(\w+)(?=:| fired)", said)
    if match:
        return Ending("stopped", match[1], said)
    named = {"stop_all": "the sweep was ended"}.get(by, f"the {by}")
    return Ending("stopped", named, said or f"stopped by {named}; it gave no reason")


def _facts(result: ReplayResult) -> Iterator[tuple[str, str]]:
    yield "Best recorded", f"{result.best_recorded:.6g}"
    yield "Regret", f"{number(result.regret, 4)} (0: the best trial found, 1: the typical one)"
    yield "Best trial stopped", "yes" if result.best_stopped else "no"
    yield "Time on the cluster", f"{result.seconds:.6g} {result.costs.unit}"


def _standing(trials: Sequence[TrialStory]) -> Iterator[str]:
    for word, found in {
        "failed": [trial for trial in trials if trial.ending.kind == "failed"],
        "diverged": [trial for trial in trials if trial.diverged],
    }.items():
        if found:
            yield f"{len(found)} of {len(trials)} trials {word}."


def _notes(result: ReplayResult) -> Iterator[str]:
    yield from result.notes
    if result.sweep.surrogate:
        yield SURROGATE
    if result.stalled:
        yield STALLED
    if math.isnan(result.best):
        yield "No report was a finite number: there is no best trial."
