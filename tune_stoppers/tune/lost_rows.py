"""Reports that a journal of ours has and `result.json` lacks.

Ray uploads `params.json` and `result.json` with its snapshots. What a kill takes of them is made
up for if the trial runs again as it did. One that was paused and is given up does not, nor one that
Ray sets back to another checkpoint, nor one that ends sooner this time; what it had saved lies on
the storage all the same.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from tune_stoppers.journal import FORGOT, TRIAL, Line
from tune_stoppers.metrics import number
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


def saved_rows(runs: Iterable[Run], metric: str, time_attr: str) -> Mapping[str, Mapping[str, Row]]:
    """What the journals have of each trial's reports of `metric` that came with a checkpoint.

    By the checkpoint's name: of two that had the same name the newest counts.
    """
    found: dict[str, dict[str, Row]] = {}
    for run in runs:
        if not any(_is_about(line, metric, time_attr) for line in run.lines):
            continue
        for line in run.lines:
            for gone in line["trials"] if line.get("event") == FORGOT else []:
                found.pop(str(gone), None)
            name = line.get("checkpoint")
            if "action" in line and name and number(line.get("value")) is not None:
                found.setdefault(line["trial"], {})[str(name)] = {
                    metric: line["value"],
                    time_attr: line["step"],
                    "timestamp": line["time"],
                    CHECKPOINT_NAME: name,
                }
    return found


def completed(rows: list[Row], saved: Mapping[str, Row], existing: Iterable[str]) -> list[Row]:
    """`rows`, and those of `saved` whose checkpoint exists and is none of theirs, by their time."""
    told = {str(row.get(CHECKPOINT_NAME)) for row in rows}
    lost = [saved[name] for name in sorted(existing) if name in saved and name not in told]
    if not lost:
        return rows
    return sorted([*rows, *lost], key=lambda row: number(row.get("timestamp")) or 0.0)


def _is_about(line: Line, metric: str, time_attr: str) -> bool:
    return (line.get("metric"), line.get("time_attr")) == (metric, time_attr)
