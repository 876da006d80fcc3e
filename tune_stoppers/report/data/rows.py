"""The rows of a trial's results: their numbers, and when and in which processes they were made."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tune_stoppers.metrics import flat_keys, lookup, number, recorded
from tune_stoppers.report.data.story import Opening, Span
from tune_stoppers.result_keys import SINCE_RESTORE, TRAINING_ITERATION

GAP = 2.0  # seconds: time stamps are whole, so that shorter gaps mean nothing
LONGEST = 1e12  # seconds: what is longer was not measured
Row = Mapping[str, Any]


def at(row: Row, time_attr: str) -> float:
    """The step of a row; NaN where it has none."""
    step = recorded(lookup(row, time_attr))
    return math.nan if step is None else step


def made_again(before: Row, row: Row, time_attr: str) -> bool:
    """Whether a trial was put back before `before` when it made `row`.

    Two reports may have one time, as two of an epoch do; of the same report there is one.
    """
    then, now = at(before, time_attr), at(row, time_attr)
    return then > now or (
        then == now and at(before, TRAINING_ITERATION) >= at(row, TRAINING_ITERATION)
    )


def value(row: Row, key: str) -> float | None:
    """The metric, NaN where it was reported as something else than a number; None if absent."""
    found = recorded(lookup(row, key))
    return math.nan if found is None and key in flat_keys(row) else found


def seconds(row: Row) -> float:
    """What a report took; 0 where it does not say."""
    taken = _time(row, "time_this_iter_s")
    return 0.0 if math.isnan(taken) else taken


def durations(process: Sequence[Row], before: Row) -> list[float]:
    """What each report of a process took; NaN where that is not known.

    Of the first, since the process began. The time of reports that Ray lost is the next one's.
    `before`: the last row of the process before, {} for the first process.
    """
    found = []
    for row in process:
        first = row is process[0]
        last: Row = {SINCE_RESTORE: 0, "time_since_restore": 0} if first else before
        made, passed = _more(row, last, SINCE_RESTORE), _more(row, last, "time_since_restore")
        own = _time(row, "time_this_iter_s")
        if math.isnan(passed):
            begun = not before or number(row.get("training_iteration")) == 1
            passed = _time(row, "time_total_s") if begun else _more(row, before, "time_total_s")
        if math.isnan(own) or (made > 1 and passed > own):
            own = passed if passed >= 0 else math.nan
        found.append(own)
        before = row
    return found


def moments(process: Sequence[Row]) -> list[float]:
    """When each report of a process was made, in seconds since the epoch; [] where unknown.

    Reports lie at the start of the process plus the time since; a stamp is the time cut to the
    second, which bounds the start from below and each report from both sides.
    """
    pairs = [(_time(row, "timestamp"), _time(row, "time_since_restore")) for row in process]
    if any(math.isnan(part) for pair in pairs for part in pair):
        return []
    start = max(stamp - since for stamp, since in pairs)
    return [min(max(start + since, stamp), stamp + 1) for stamp, since in pairs]


def spans_of(rows: Sequence[Row], time_attr: str) -> tuple[dict[int, float], list[Span]]:
    """When each report was made, by id of its row, and when processes ran."""
    times: dict[int, float] = {}
    spans: list[Span] = []
    reached = -math.inf
    for process in processes(rows):
        ends = moments(process)
        if not ends:
            continue
        opening: Opening = "resume" if at(process[0], time_attr) > reached else "restart"
        for row, end in zip(process, ends, strict=True):
            begin = end - seconds(row)
            times[id(row)] = end
            host, open_ = str(row.get("hostname", "")), spans[-1] if spans else None
            if row is not process[0] and open_ and begin - open_.end < GAP:
                spans[-1] = Span(open_.begin, end, open_.host, open_.opening, open_.step)
            else:
                first = opening if row is process[0] else "resume"
                step = at(row, time_attr)
                spans.append(Span(begin, end, host, first if spans else "start", step))
        reached = at(process[-1], time_attr)
    return times, spans


def processes(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The rows that one process of the trial reported, in turn; one written twice counts once."""
    process: list[Row] = []
    for row in rows:
        last = process[-1] if process else row
        if process and _is_copy(row, last):
            continue
        since, before = number(row.get(SINCE_RESTORE)), number(last.get(SINCE_RESTORE))
        same = all(row.get(key) == last.get(key) for key in ("pid", "hostname"))
        again = since is not None and before is not None and since <= before
        if process and (not same or again):
            yield process
            process = []
        process.append(row)
    if process:
        yield process


def _is_copy(row: Row, last: Row) -> bool:
    """Whether a row is the one before it, written once more: of one process at one moment."""
    keys = ("timestamp", "time_since_restore", SINCE_RESTORE, "pid", "hostname")
    return all(row.get(key) is not None and row.get(key) == last.get(key) for key in keys)


def _more(row: Row, before: Row, key: str) -> float:
    return _time(row, key) - _time(before, key)


def _time(row: Row, key: str) -> float:
    """A time of a row; NaN where it is none."""
    taken = number(row.get(key))
    return taken if taken is not None and 0 <= taken < LONGEST else math.nan
