"""What a report needs of an experiment's journal; every key of a line may be absent."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from tune_stoppers.core import Action, Mode
from tune_stoppers.journal import (
    AGAIN,
    CONFIG,
    ENDED,
    FORGOT,
    OVER,
    SAVING,
    TRIAL,
    UNJUDGED,
    Line,
)
from tune_stoppers.metrics import lookup, number, sign_of
from tune_stoppers.report.story import Event
from tune_stoppers.tune.experiment import TrialRecord

TIMES = ("training_iteration", "step", "epoch", "progress")  # what a journal may count in
# book-keeping
UNSHOWN = (
    *(ENDED, UNJUDGED, FORGOT, TRIAL, CONFIG, OVER, AGAIN, SAVING),
    *("cost", "out of order"),
)
PAUSED = ("pause", "paused")


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


def objective_of(lines: Sequence[Line]) -> tuple[str | None, str | None]:
    """The metric and the mode that the journal names, None for what it does not."""
    metric = next((str(line["metric"]) for line in lines if line.get("metric")), None)
    mode = next((str(line["mode"]) for line in lines if line.get("mode")), None)
    signs = {line["sign"] for line in lines if line.get("sign") in (1, -1)}
    if mode is None and len(signs) == 1:
        mode = "min" if signs == {1} else "max"
    return metric, mode


def time_attr_of(records: Sequence[TrialRecord], lines: Sequence[Line]) -> str:
    """What the journal says that it counts in, or what its steps agree with."""
    said = next((str(line["time_attr"]) for line in lines if line.get("time_attr")), None)
    if said is not None or not lines:
        return said or TIMES[0]
    judged: dict[str, set[float]] = {}
    for line in lines:
        if line.get("action"):
            judged.setdefault(str(line.get("trial")), set()).add(step_of(line))
    known = [record for record in records if record.trial_id in judged]

    def agreeing(name: str) -> int:
        steps = ({number(lookup(row, name)) for row in record.rows} for record in known)
        return sum(len(judged[r.trial_id] & s) for r, s in zip(known, steps, strict=True))

    return max(TIMES, key=agreeing)  # of equals, the first


def events_of(lines: Sequence[Line], begin: float) -> Iterator[Event]:
    """What the journal tells beside judgements; decisions to pause too, if no pause is told."""
    told = any(line.get("event") in PAUSED for line in lines)
    for line in lines:
        kind = line.get("event")
        if not told and line.get("action") == Action.PAUSE.value and not line.get("dry_run"):
            kind = kind or PAUSED[0]
        if kind and kind not in UNSHOWN:
            time = number(line.get("time"))
            moment = math.nan if time is None else time - begin
            yield Event(moment, step_of(line), str(kind), why_of(line))


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
