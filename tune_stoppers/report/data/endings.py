"""How each trial of an experiment ended, from its results and from what our rules wrote down."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tune_stoppers.experiment.folder import ERROR, Experiment, TrialRecord
from tune_stoppers.experiment.journals import Run
from tune_stoppers.experiment.judged import over_in
from tune_stoppers.experiment.listed import FAILED, PAUSED, PENDING, RUNNING, TERMINATED
from tune_stoppers.experiment.own_keys import reason_in
from tune_stoppers.journal.lines import ENDED, GIVEN_UP, UNJUDGED, USER, Line, asks_to_stop
from tune_stoppers.metrics import number
from tune_stoppers.report.data.journalled import why_of
from tune_stoppers.report.data.story import Ending

# causes
BY_HAND, WHOLE = "stopped by hand", "ran to the last step"
TO_START, NEVER, NO_END = "waiting to start", "never started", "no end recorded"
TAIL = 4096  # bytes of an error that are read
STOPPED_WITH_SWEEP = (
    "it had not ended by itself: the sweep ended (time_budget_s, say), or a scheduler of Ray's "
    "stopped it while it waited"
)


class Said(NamedTuple):
    """What the journals say of endings."""

    last: dict[str, list[Line]]  # of each trial, the last word of each run
    over: str  # why a run ended the whole sweep, or ""
    before: frozenset[str]  # trials that had ended by then
    owners: frozenset[str] = frozenset()  # who wrote them

    def end(self, trial_id: str) -> Line | None:
        """The newest line that ended the trial, if it did not continue after it."""
        told = [line for line in self.last.get(trial_id, ()) if _ends(line)]
        return max(told, key=lambda line: number(line["time"]) or 0.0, default=None)


def horizon_of(records: Iterable[TrialRecord]) -> float:
    """The iterations of the longest course of a sweep; NaN if none reported."""
    return max((_last(record) for record in records if record.rows), default=math.nan)


def ending_of(experiment: Experiment, record: TrialRecord, said: Said, horizon: float) -> Ending:
    """From the reason in the last result, the journals, then status and length."""
    if record.status == FAILED:
        return Ending("failed", "failed", error_of(experiment, record))
    reason = reason_in(record.rows[-1] if record.rows else None, said.owners)
    end = said.end(record.trial_id)
    if reason and not (end is not None and _is_horizon(end)):
        return Ending("stopped", cause_of(reason), reason)
    if end is not None:
        words = _words(end)
        if _is_horizon(end):
            return Ending("finished", WHOLE, words)
        return Ending("stopped", cause_of(words), words)
    ended = record.status == TERMINATED and not record.cut
    if ended and record.rows and _last(record) >= horizon:
        return Ending("finished", WHOLE, f"{_last(record):g} iterations")
    if said.over and record.trial_id not in said.before:
        return Ending("stopped", cause_of(said.over), said.over)
    if record.status in (RUNNING, PAUSED, PENDING):
        return _unfinished(experiment, record)
    if record.cut and record.rows:
        return Ending("stopped", "stopped with the sweep", STOPPED_WITH_SWEEP)
    if record.cut and not (record.listed and record.listed.started):
        return Ending("unfinished", NEVER, "the sweep ended, or it was dropped, before its turn")
    if not record.rows:
        return Ending("unfinished", "never reported", "no result was recorded")
    if record.status != TERMINATED:
        text = "running, paused, interrupted, or returned: its end was not recorded"
        return Ending("unfinished", NO_END, text)
    if record.rows[-1].get("done"):
        text = "ended by a stopper, a scheduler or itself: which of them was not recorded"
        return Ending("unexplained", "stopped, cause unknown", text)
    return Ending("finished", "ended by itself", "returned before the last step")


def _unfinished(experiment: Experiment, record: TrialRecord) -> Ending:
    """A trial that Ray, or one of our schedulers, last knew as one that runs or waits."""
    since = f"after iteration {_last(record):g}" if record.rows else "without a report yet"
    listed = record.listed
    if record.status == RUNNING:
        text = f"Ray last noted it as running, {since}; unless the sweep still runs, it was cut off"
        return Ending("unfinished", "running or cut off", text)
    if record.status == PAUSED:
        return Ending("unfinished", "paused", f"Ray last noted it as paused, {since}")
    if listed and listed.failures:
        text = f"it waits for another try, {since}: {error_of(experiment, record)}"
        return Ending("unfinished", "waiting for another try", text)
    if record.rows or (listed and listed.started):
        return Ending("unfinished", "waiting to continue", f"it waits for a free worker, {since}")
    return Ending("unfinished", TO_START, "it has not started")


def cause_of(reason: str) -> str:
    """Who gave a reason: "PatienceStopper: 3 of 3 …", "MaximumIterationStopper fired"."""
    match = re.match(r"(\w+)(?=:| fired)", reason)
    if match is None:
        return "stopped"
    return BY_HAND if match[1] == USER else match[1]


def error_of(experiment: Experiment, record: TrialRecord) -> str:
    """The last line of what went wrong."""
    path = f"{record.folder}/{ERROR}"
    if not experiment.is_file(path):
        return "no error was kept"
    with experiment.filesystem.open_input_file(path) as file:
        file.seek(max(file.size() - TAIL, 0))
        text = bytes(file.read()).decode("utf-8", errors="replace")
    said = [line.strip() for line in text.splitlines() if line.strip()]
    return said[-1] if said else "the error says nothing"


def said_by(runs: Sequence[Run]) -> Said:
    """What the runs say, in one pass over them."""
    last: dict[str, list[Line]] = {}
    ended: dict[str, float] = {}  # seconds since the epoch
    over, since = "", math.inf
    for run in runs:
        of_run: dict[str, Line] = {}
        for line in run.lines:
            if "action" in line or line.get("event") in (USER, GIVEN_UP):
                of_run[line["trial"]] = line
            if line.get("event") in (ENDED, UNJUDGED):
                ended[line["trial"]] = number(line["time"]) or 0.0
            if why := over_in({"owner": run.owner} | line):
                over, since = over or why, min(since, number(line["time"]) or 0.0)
        for trial_id, line in of_run.items():
            last.setdefault(trial_id, []).append(line)
    before = frozenset(trial_id for trial_id, time in ended.items() if time < since)
    return Said(last, over, before, frozenset(run.owner for run in runs))


def _ends(line: Line) -> bool:
    return asks_to_stop(line) or line.get("event") in (USER, GIVEN_UP)


def _is_horizon(line: Line) -> bool:
    """Whether a scheduler only stopped the trial because it was through."""
    numbers = line.get("numbers") or {}
    limits = [number(part.get("max_t")) for part in (numbers, *numbers.get("parts", ()))]
    step = number(line.get("step")) or 0.0
    return any(limit is not None and step >= limit for limit in limits)


def _words(line: Line) -> str:
    if line.get("event") == USER:
        return f"{USER}: {why_of(line) or 'no reason given'}"
    owner = str(line["owner"])
    return f"{owner}: {(why_of(line) or 'no reason given').removeprefix(owner + ': ')}"


def _last(record: TrialRecord) -> float:
    return number(record.rows[-1].get("training_iteration")) or 0.0
