"""Reports that a journal of ours has and `result.json` lacks.

Ray uploads `params.json` and `result.json` with its snapshots. What a kill takes of them is made
up for if the trial runs again as it did. One that was paused and is given up does not, nor does
one that Ray sets back to another checkpoint; those that it had saved lie on the storage all the
same.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from tune_stoppers.journal import BEGINS, FORGOT, TRIAL, Line
from tune_stoppers.metrics import lookup, number
from tune_stoppers.tune.reader import CHECKPOINT_NAME
from tune_stoppers.tune.runs import Run

Row = dict[str, Any]


def judged_trials(lines: Iterable[Line]) -> set[str]:
    """The trials that a scheduler of ours has judged and still remembers."""
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


def judged_rows(
    runs: Iterable[Run], metric: str, time_attr: str
) -> Mapping[str, Mapping[float, Row]]:
    """What the schedulers' journals have of each trial's reports of `metric`, by step.

    A step that a trial went back behind does not count until it comes to it again. (A stopper's
    journal does not say which trials Ray has forgotten.)
    """
    found: dict[str, dict[float, Row]] = {}
    for run in runs:
        if not any(_is_about(line, metric, time_attr) for line in run.lines):
            continue
        for line in run.lines:
            event = line.get("event")
            if event == TRIAL:
                found.setdefault(line["trial"], {})
            for gone in line["trials"] if event == FORGOT else []:
                found.pop(str(gone), None)
            if "action" not in line or line["trial"] not in found:
                continue
            step, rows = line["step"], found[line["trial"]]
            if event == "rewind":
                for undone in [known for known in rows if known >= step]:
                    del rows[undone]
            if number(line.get("value")) is not None:
                rows[step] = {
                    metric: line["value"],
                    time_attr: step,
                    "timestamp": line["time"],
                    CHECKPOINT_NAME: line.get("checkpoint"),
                }
    return found


def completed(
    rows: list[Row], judged: Mapping[float, Row], metric: str, time_attr: str
) -> list[Row]:
    """`rows`, and what they lack of `judged`, in the order reported."""
    known = {(number(lookup(row, time_attr)), number(lookup(row, metric))) for row in rows}
    lost = [row for row in judged.values() if (row[time_attr], number(row[metric])) not in known]
    if not lost:
        return rows
    return sorted([*rows, *lost], key=lambda row: number(row.get("timestamp")) or 0.0)


def _is_about(line: Line, metric: str, time_attr: str) -> bool:
    told = line.get("metric"), line.get("time_attr")
    return line.get("event") == BEGINS and told == (metric, time_attr)
