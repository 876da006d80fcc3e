"""What `tune-stoppers explain` prints, out of what `report.data.explain` found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from tune_stoppers.core import Action
from tune_stoppers.experiment.configs import flat
from tune_stoppers.journal.lines import Line
from tune_stoppers.journal.rerun import Difference, Rerun
from tune_stoppers.journal.spec import in_words
from tune_stoppers.metrics import number
from tune_stoppers.report import compute
from tune_stoppers.report.data.explain import (
    NO_JOURNAL,
    Explained,
    TrialTold,
    Verified,
    number_of,
)
from tune_stoppers.report.data.journalled import why_of
from tune_stoppers.report.data.story import Ending

SHOWN_IDS = 4
SHOWN_DIFFERENCES = 3
DECISIONS = 5  # of a trial, the last
WORDS = ("which", "decision", "by", "why", "event")  # columns that hold no numbers


class Table(NamedTuple):
    """Rows under a header, and what to say below them."""

    header: list[str]
    rows: list[list[str]]
    note: str = ""


def summary(told: Explained) -> list[str]:
    """The experiment in a few lines."""
    lines = [f"{told.name}: {_counted(len(told.trials), 'trial')}"]
    for run in told.runs:
        lines.append(f"watched by {run.owner}" + (f": {in_words(run.spec)}" if run.spec else ""))
        if run.missing:
            lines.append(
                f"{_counted(run.missing, 'line')} of its journal lost, torn or not its own"
            )
    lines += [" ".join(told.standing)] if told.standing else []
    reports = sum(len(trial.record.rows) for trial in told.trials)
    took = compute.sentence(told.totals, reports, told.time_attr)
    end = told.notes if told.runs else [NO_JOURNAL]
    known = told.earlier.sentences() if told.earlier else ()
    return [*lines, *known, *([took] if took else []), *end]


def endings(told: Explained) -> Table:
    """Endings by cause."""
    rows = []
    for cause, trials in told.endings.items():
        ids = [trial.trial_id for trial in trials]
        more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
        rows.append([cause, str(len(ids)), ", ".join(ids[:SHOWN_IDS]) + more])
    return Table(["ended by", "trials", "which"], rows)


def headline(told: Explained, trial: TrialTold) -> list[str]:
    """A trial and its end in a few lines."""
    ending, record = trial.ending, trial.record
    units = _units(told, trial.decisions)
    unit = told.units[id(trial.counted[-1])] if len(units) > 1 and trial.counted else "step"
    at = "" if trial.step is None else f" at {unit} {trial.step:g}"
    at += "" if trial.value is None else f" with value {trial.value:.6g}"
    config = ", ".join(f"{key}={_short(value)}" for key, value in flat(trial.config).items())
    return [
        f"trial {trial.trial_id}: {_ended(ending)}{at}",
        f"why: {ending.reason}",
        f"status: {record.status} after {_counted(len(record.rows), 'report')}",
        *([f"config: {config}"] if config else []),
        *([f"config changed: {'; '.join(trial.changes)}"] if trial.changes else []),
        *([] if told.runs else [NO_JOURNAL]),
    ]


def decisions(told: Explained, trial: TrialTold, most: int | None = DECISIONS) -> Table:
    """The trial's last decisions in words, at most so many; None: all."""
    last = trial.decisions[-most:] if most is not None else trial.decisions
    units = _units(told, last)
    rows = [
        [_since(told, line), *_steps(told, line, units), _value(line), *_said(line, why)]
        for line, why in zip(last, told.reasons(last), strict=True)
    ]
    left = len(trial.decisions) - len(last)
    note = f"{_counted(left, 'earlier decision')} not shown: --all shows them." if left else ""
    return Table(["time", *units, "value", "decision", "by", "why"], rows, note)


def events(told: Explained, trial: TrialTold) -> Table:
    """What else happened to the trial."""
    units = _units(told, trial.events)
    rows = [
        [_since(told, line), *_steps(told, line, units), str(line["event"]), _event(line)]
        for line in trial.events
    ]
    return Table(["time", *units, "event", "why"], rows)


def _units(told: Explained, lines: Sequence[Line]) -> list[str]:
    """A column for each unit that the lines count their steps in; of one unit: "step"."""
    units = dict.fromkeys(told.units.get(id(line), "step") for line in lines)
    return list(units) if len(units) > 1 else ["step"]


def _steps(told: Explained, line: Line, units: Sequence[str]) -> list[str]:
    """The step of a line, in the column of its unit."""
    if len(units) == 1:
        return [_step(line)]
    own = told.units.get(id(line), "step")
    return [_step(line) if unit == own else "" for unit in units]


def verdict(checked: Verified) -> list[str]:
    """What came of running a rule again, in a line for each thing to know."""
    owner = checked.run.owner
    if checked.rerun is None:
        return [f"{owner}: cannot be run again: {checked.why}"]
    again, compared = checked.rerun, checked.compared
    text = f"{owner}: {_counted(again.checked, 'decision')} checked{_outcome(again)}"
    if again.unsure:
        text += f"; {again.unsure} after a restore not checked"
    told = [text, *(_difference(one, checked.run.sign) for one in _shown(again))]
    if compared is not None and compared.checked + compared.unsure:
        made = f"{_counted(compared.checked, 'comparison')} of trials made again"
        text = f"{owner}: {made}{_outcome(compared)}"
        if compared.unsure:
            text += f"; {compared.unsure} not: what they began with is not in the journal"
        told += [text, *(_otherwise(one, checked.run.sign) for one in _shown(compared))]
    return told


def _outcome(again: Rerun) -> str:
    """How many came out otherwise, to follow how many were checked."""
    count = len(again.differing)
    if not again.checked:
        return ""
    return f", {count} differ{'s' if count == 1 else ''}" if count else ", all the same"


def _shown(again: Rerun) -> Sequence[Difference]:
    return again.differing[:SHOWN_DIFFERENCES]


def _otherwise(one: Difference, sign: int) -> str:
    return f"  trial {one.line['trial']}: was {why_of(one.line)}, now {one.decision.say(sign)}"


def tables(told: Explained, trial: TrialTold | None, most: int | None = DECISIONS) -> list[Table]:
    """Of the experiment, or of one trial with at most so many decisions."""
    if trial is None:
        return [endings(told)]
    return [decisions(told, trial, most), events(told, trial)]


def facts(told: Explained, trial: TrialTold | None, checked: list[Verified]) -> dict[str, Any]:
    """The same for machines."""
    found: dict[str, Any] = {"experiment": told.name, "journal": bool(told.runs)}
    found["notes"] = told.notes
    if trial is None:
        found["compute"] = compute.facts(told.totals)
        found["standing"] = list(told.standing)
        found["earlier_sweeps"] = None if told.earlier is None else vars(told.earlier)
        found["endings"] = {cause: len(trials) for cause, trials in told.endings.items()}
        found["trials"] = [_facts(one) for one in told.trials]
    else:
        found["trial"] = _facts(trial)
        found["decisions"], found["events"] = trial.decisions, trial.events
    if checked:
        found["verified"] = [_checked(one) for one in checked]
    return found


def _facts(trial: TrialTold) -> dict[str, Any]:
    return {
        "trial_id": trial.trial_id,
        "ending": trial.ending.kind,
        "cause": trial.ending.cause,
        "reason": trial.ending.reason,
        "status": trial.record.status,
        "step": trial.step,
        "value": trial.value,
        "reports": len(trial.record.rows),
    }


def _checked(one: Verified) -> dict[str, Any]:
    again, compared = one.rerun, one.compared
    return {
        "owner": one.run.owner,
        "checked": 0 if again is None else again.checked,
        "unsure": 0 if again is None else again.unsure,
        "differing": [] if again is None else [difference.line for difference in again.differing],
        "why_not": one.why,
    } | ({} if compared is None else {"comparisons": _counts(compared)})


def _counts(compared: Rerun) -> dict[str, Any]:
    differing = [difference.line for difference in compared.differing]
    return {"checked": compared.checked, "unsure": compared.unsure, "differing": differing}


def _ended(ending: Ending) -> str:
    by_name = ending.kind == "stopped" and not ending.cause.startswith("stopped")
    return f"stopped by {ending.cause}" if by_name else ending.cause


def _difference(one: Difference, sign: int) -> str:
    line, now = one.line, one.decision
    return (
        f"  trial {line['trial']} step {line['step']:g}: was {line['action']} "
        f"({why_of(line) or 'no reason kept'}), now {now.action.value} ({now.say(sign)})"
    )


def _said(line: Line, why: str) -> list[str]:
    return [_action(line), str(line["owner"]), why]


def _action(line: Line) -> str:
    if line["action"] == Action.CONTINUE.value:
        return str(line["action"])
    note = " (dry run)" if line.get("dry_run") else " (not yet)" if line.get("early") else ""
    return f"{line['action']}{note}"


def _event(line: Line) -> str:
    """Why, or the numbers that came with it."""
    numbers = line.get("numbers") or {}
    told = ", ".join(f"{key}={_short(value)}" for key, value in numbers.items())
    return why_of(line) or told


def _since(told: Explained, line: Line) -> str:
    return f"+{(number(line['time']) or 0.0) - told.begin:.1f} s"


def _step(line: Line) -> str:
    step = number(line.get("step"))
    return "" if step is None or not math.isfinite(step) else f"{step:g}"


def _value(line: Line) -> str:
    value = number_of(line.get("value"))
    return "" if value is None else f"{value:.6g}"


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")
