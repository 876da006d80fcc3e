"""Which trials there were, and how they ended, as the journals tell it.

A kill may leave a folder with no results.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tune_stoppers.journal.lines import (
    ENDED,
    FORGOT,
    GIVEN_UP,
    LOST,
    OVER,
    TRIAL,
    UNJUDGED,
    USER,
    Line,
    asked,
    asks_to_stop,
)
from tune_stoppers.metrics import number


def judged_trials(lines: Iterable[Line]) -> set[str]:
    """The trials that one of our schedulers has judged and still remembers."""
    added: set[str] = set()
    judged: set[str] = set()
    for line in lines:
        if line.get("event") == TRIAL:
            added.add(line["trial"])
        elif line.get("event") == FORGOT:
            gone = {str(trial) for trial in line["trials"]}
            added, judged = added - gone, judged - gone
        elif "action" in line and line["trial"] in added:
            judged.add(line["trial"])
    return judged


def waiting_trials(lines: Iterable[Line]) -> set[str]:
    """The trials that one of our schedulers was given, and of which nothing has been heard."""
    waiting: set[str] = set()
    for line in lines:
        event = line.get("event")
        if event == TRIAL:
            waiting.add(line["trial"])
        elif event == FORGOT:
            waiting -= {str(trial) for trial in line["trials"]}
        elif "action" in line or event in (ENDED, LOST, UNJUDGED, GIVEN_UP, USER):
            waiting.discard(line["trial"])
    return waiting


class _End(NamedTuple):
    time: float  # seconds since the epoch
    step: float
    reason: str | None


def ended_in(journal: Iterable[Line], reported: Mapping[str, float]) -> dict[str, str | None]:
    """The trials that the journal saw end, and that did not continue after it, and why.

    `reported`: when each trial of the sweep last reported, in seconds since the epoch.
    """
    ends: dict[str, _End] = {}
    judged: dict[str, float] = {}  # where each trial was last
    for line in journal:
        trial_id, event = str(line.get("trial")), line.get("event")
        time, step = number(line.get("time")) or 0.0, number(line.get("step")) or 0.0
        if "action" in line:
            judged[trial_id] = step
        if asks_to_stop(line):
            ends[trial_id] = _End(time, step, f"{line.get('owner')}: {line.get('reason')}")
        elif event in (ENDED, UNJUDGED):
            known = ends.get(trial_id)
            ends[trial_id] = _End(time, step, known.reason if known else None)
        elif event in (GIVEN_UP, USER):  # it may have been waiting, and reports nothing more
            why = str((line.get("numbers") or {}).get("why", ""))
            told = asked(why) if event == USER else why
            ends[trial_id] = _End(time, judged.get(trial_id, 0.0), told)
        elif "action" in line and trial_id in ends and step > ends[trial_id].step:
            del ends[trial_id]  # judged at a later report
    return {
        trial_id: end.reason
        for trial_id, end in ends.items()
        if trial_id in reported and reported[trial_id] <= end.time + 1
    }


def over_in(line: Line) -> str:
    """Why the sweep ended, if this line says so; else ""."""
    if line.get("ends_sweep") and asks_to_stop(line):
        return f"{line.get('owner')}: ended the sweep: {line.get('reason') or 'no reason given'}"
    return str(line.get("why", "")) if line.get("event") == OVER else ""  # by the clock
