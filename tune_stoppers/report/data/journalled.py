"""What a report needs of an experiment's journal; every key of a line may be absent."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from tune_stoppers.core import Action, Mode
from tune_stoppers.experiment.counting import TIMES as TIMES
from tune_stoppers.experiment.counting import time_attr_of as time_attr_of
from tune_stoppers.experiment.journals import objective_of as objective_of
from tune_stoppers.journal.lines import (
    AGAIN,
    CONFIG,
    ENDED,
    FORGOT,
    GIVEN_UP,
    LOST,
    OVER,
    RESUMED,
    SAVING,
    STARTED,
    TRIAL,
    UNJUDGED,
    Line,
)
from tune_stoppers.metrics import number, sign_of
from tune_stoppers.report.data.story import Event

# book-keeping
UNSHOWN = (
    *(ENDED, UNJUDGED, FORGOT, TRIAL, CONFIG, OVER, AGAIN, SAVING),
    *("cost", "start cost", "out of order"),
)
PAUSED = "paused"
AT_ONCE = "goes on at once: "
WENT_ON = (AT_ONCE, "continues at once: ")  # why a trial "resumed" that did not pause


def would_stop(line: Line) -> bool:
    """Whether the line is a decision to stop that a dry run did not take."""
    return line.get("action") == Action.STOP.value and bool(line.get("dry_run"))


def rule_of(lines: Sequence[Line]) -> str:
    """What ran, in words: the rules that say so as they begin, else the owners of the lines."""
    owners: dict[str, str] = {}
    for line in lines:
        owner = str(line.get("owner") or "")
        if owner and (owner not in owners or ("rule" in line and "action" not in line)):
            told = "rule" in line and "action" not in line
            owners[owner] = f"{owner} with {line['rule']}" if told else owner
    return "; ".join(owners.values())


def events_of(lines: Sequence[Line], begin: float) -> Iterator[Event]:
    """What the journal tells beside judgements; decisions to pause too, if it tells no pauses.

    Whoever tells starts tells pauses: the other decisions to pause were not carried out. Nothing of
    a trial that was to pause and went on at once, nor that one given up is gone.
    """
    told = any(line.get("event") in (PAUSED, STARTED, RESUMED, GIVEN_UP) for line in lines)
    before = None
    for line in lines:
        kind = line.get("event")
        if not told and line.get("action") == Action.PAUSE.value and not line.get("dry_run"):
            kind = kind or PAUSED
        gone, before = kind == LOST and before == GIVEN_UP, kind
        if kind and kind not in UNSHOWN and not gone and not went_on(line):
            time = number(line.get("time"))
            moment = math.nan if time is None else time - begin
            yield Event(moment, step_of(line), str(kind), why_of(line))


def went_on(line: Line) -> bool:
    """Whether a trial was resumed that did not pause first."""
    return line.get("event") == RESUMED and why_of(line).startswith(WENT_ON)


def numbers_of(lines: Sequence[Line], key: str, rule: str | None = None) -> Iterator[float]:
    """The numbers of that name, also those inside what a combinator combined."""
    for line in lines:
        numbers = line.get("numbers")
        stack = [(line.get("rule"), numbers)] if isinstance(numbers, dict) else []
        while stack:
            name, found = stack.pop()
            stack += [(part.get("rule"), part) for part in found.get("parts", ())]
            value = number(found.get(key))
            if value is not None and math.isfinite(value) and rule in (None, name):
                yield value


def thresholds_of(lines: Sequence[Line], mode: Mode) -> tuple[float, ...]:
    """Those of `Threshold`, kept as losses, in the metric's units."""
    return tuple(sorted({sign_of(mode) * t for t in numbers_of(lines, "threshold", "Threshold")}))


def step_of(line: Line) -> float:
    """The step that the line is about; NaN where it does not say."""
    step = number(line.get("step"))
    return math.nan if step is None else step


def why_of(line: Line) -> str:
    """The reason that a line gives, or ""."""
    numbers = line.get("numbers")
    why = numbers.get("why") if isinstance(numbers, dict) else None
    return str(line.get("reason") or line.get("why") or why or "")
