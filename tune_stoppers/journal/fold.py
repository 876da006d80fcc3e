"""From the journal back to the record: the same reports, in their order, through the same rule."""

from collections.abc import Iterable, Iterator
from typing import Any

from tune_stoppers.core import Decision, Report, SweepRule
from tune_stoppers.journal.lines import ENDED, FORGOT, LOST, UNJUDGED, Line


def report_of(line: Line, sign: int) -> Report:
    """The report that a line of the journal judged; `sign` is -1 where the metric is maximised."""
    value = line.get("value")
    loss = None if value is None else sign * float(value)
    metrics = {key: float(v) for key, v in line.get("metrics", {}).items()}
    return Report(line["trial"], line["step"], loss, metrics)


def fold(
    rule: SweepRule[Any], record: Any, lines: Iterable[Line], sign: int
) -> Iterator[tuple[Line, Decision]]:
    """Take `lines` into `record`; yields each judged line with the decision made on it now."""
    for line in lines:
        event = line.get("event", "")
        if "action" in line:
            decision = rule.update(
                record,
                report_of(line, sign),
                checkpoint=line.get("checkpoint"),
                since_restore=line.get("since"),
            )
            yield line, decision
        elif event == ENDED:
            if line.get("whole"):
                rule.finished(record, line["trial"])
            rule.ended(record, report_of(line, sign))
        elif event == UNJUDGED:
            rule.unjudged(record, line["trial"], line.get("step"))
        elif event == LOST:
            rule.lost(record, line["trial"])
        elif event == FORGOT:
            rule.forget(record, line["trials"])
        elif "numbers" in line:
            rule.note(record, line["trial"], event, line["numbers"])
