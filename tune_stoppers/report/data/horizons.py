"""What a journal and its results say of horizons: the sentence of the live warning, afterwards."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tune_stoppers.experiment.folder import TrialRecord
from tune_stoppers.experiment.listed import TERMINATED
from tune_stoppers.journal.lines import Line
from tune_stoppers.journal.spec import from_spec
from tune_stoppers.metrics import lookup, number
from tune_stoppers.report.data.story import Ending
from tune_stoppers.result_keys import STOP_REASON
from tune_stoppers.rules.horizon import ITERATION, Seen, glance, max_t_of, misfit


def horizon_notes(
    lines: Iterable[Line], trials: Sequence[tuple[TrialRecord, Ending]]
) -> Iterator[str]:
    """One sentence for each stopper and scheduler whose `max_t` does not fit the trials' time."""
    for line in {str(line.get("owner")): line for line in lines if line.get("spec")}.values():
        try:
            max_t = max_t_of(from_spec(line["spec"]))
        except ValueError:
            continue  # a rule of a user's own, or of another version
        if max_t is None:
            continue
        time_attr = str(line.get("time_attr") or ITERATION)
        seen = (_seen(record, ending, time_attr) for record, ending in trials)
        found = misfit(max_t, time_attr, [trial for trial in seen if trial is not None])
        if found is not None:
            yield found.say(str(line.get("owner")), _objective(line))


def _seen(record: TrialRecord, ending: Ending, time_attr: str) -> Seen | None:
    """What a trial's rows say of its length; None without a report after time 0."""
    timed = [(number(lookup(row, time_attr)), row) for row in record.rows]
    rows: list[tuple[float, dict[str, Any]]] = [
        (time, row) for time, row in timed if time is not None and 0 < time < math.inf
    ]
    if not rows:
        return None
    first, (longest, last) = rows[0], max(rows, key=lambda item: item[0])
    seen = Seen(glance(*first, time_attr), longest)
    ended = record.status == TERMINATED and ending.kind == "finished"
    if not ended or last.get(STOP_REASON):
        return seen
    return seen._replace(end=glance(longest, last, time_attr), sure=not last.get("done"))


def _objective(line: Line) -> str:
    """The metric and mode that a stopper is given first; a scheduler may have them elsewhere."""
    if not str(line.get("owner")).endswith("Stopper") or not line.get("metric"):
        return ""
    return f'"{line["metric"]}", "{"max" if line.get("sign") == -1 else "min"}"'
