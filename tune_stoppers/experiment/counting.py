"""What the steps of an experiment are counted in, where nobody says it."""

from __future__ import annotations

from collections.abc import Sequence

from tune_stoppers.experiment.folder import TrialRecord
from tune_stoppers.journal.lines import Line
from tune_stoppers.metrics import lookup, number

TIMES = ("training_iteration", "step", "epoch", "progress")  # what a journal may count in


def time_attr_of(records: Sequence[TrialRecord], lines: Sequence[Line]) -> str:
    """What the journal says that it counts in, or what its steps agree with.

    Where no report has that, as when it is misspelt under `on_missing="skip"`: Ray's iterations.
    """
    said = next((str(line["time_attr"]) for line in lines if line.get("time_attr")), None)
    if said is not None:
        rows = [row for record in records for row in record.rows]
        is_there = any(number(lookup(row, said)) is not None for row in rows)
        return said if is_there or not rows else TIMES[0]
    if not lines:
        return TIMES[0]
    judged: dict[str, set[float | None]] = {}
    for line in lines:
        if line.get("action"):
            judged.setdefault(str(line.get("trial")), set()).add(number(line.get("step")))
    known = [record for record in records if record.trial_id in judged]

    def agreeing(name: str) -> int:
        steps = ({number(lookup(row, name)) for row in record.rows} - {None} for record in known)
        return sum(len(judged[r.trial_id] & s) for r, s in zip(known, steps, strict=True))

    return max(TIMES, key=agreeing)  # of equals, the first
