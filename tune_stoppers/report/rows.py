"""The rows of a trial's results: their numbers, and when and in which processes they were made."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tune_stoppers.metrics import flat_keys, lookup, number, recorded
from tune_stoppers.report.story import Opening, Span
from tune_stoppers.tune.reader import SINCE_RESTORE

GAP = 2.0  # seconds: time stamps are whole, so that shorter gaps mean nothing
Row = Mapping[str, Any]


def at(row: Row, time_attr: str) -> float:
    """The step of a row; NaN where it has none."""
    step = recorded(lookup(row, time_attr))
    return math.nan if step is None else step


def value(row: Row, key: str) -> float | None:
    """The metric, NaN where it was reported as something else than a number; None if absent."""
    found = recorded(lookup(row, key))
    return math.nan if found is None and key in flat_keys(row) else found


def seconds(row: Row) -> float:
    """What a report took; 0 where it does not say."""
    taken = number(row.get("time_this_iter_s"))
    return taken if taken is not None and math.isfinite(taken) else 0.0


def spans_of(rows: Sequence[Row], time_attr: str) -> tuple[dict[int, float], list[Span]]:
    """When each report was made and when processes ran, from whole time stamps and durations.

    Within a process, reports lie at its start plus the time since; a stamp is the time cut to the
    second, which bounds the start from below and each report from both sides.
    """
    times: dict[int, float] = {}
    spans: list[Span] = []
    reached = -math.inf
    for process in _processes(rows):
        stamps = [number(row.get("timestamp")) for row in process]
        elapsed = [number(row.get("time_since_restore")) for row in process]
        if any(part is None for part in (*stamps, *elapsed)):
            continue
        pairs = [(s or 0.0, e or 0.0) for s, e in zip(stamps, elapsed, strict=True)]
        start = max(stamp - since for stamp, since in pairs)
        step = at(process[0], time_attr)
        opening: Opening = "resume" if step > reached else "restart"
        for row, (stamp, since) in zip(process, pairs, strict=True):
            end = min(max(start + since, stamp), stamp + 1)
            begin = end - seconds(row)
            times[id(row)] = end
            place, open_ = str(row.get("hostname", "")), spans[-1] if spans else None
            if row is not process[0] and open_ and begin - open_.end < GAP:
                spans[-1] = Span(open_.begin, end, open_.place, open_.opening, open_.step)
            else:
                first = opening if row is process[0] else "resume"
                step = at(row, time_attr)
                spans.append(Span(begin, end, place, first if spans else "start", step))
        reached = at(process[-1], time_attr)
    return times, spans


def _processes(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The rows that one process of the trial reported, in turn."""
    process: list[Row] = []
    for row in rows:
        last = process[-1] if process else row
        since, before = number(row.get(SINCE_RESTORE)), number(last.get(SINCE_RESTORE))
        same = all(row.get(key) == last.get(key) for key in ("pid", "hostname"))
        again = since is not None and before is not None and since <= before
        if process and (not same or again):
            yield process
            process = []
        process.append(row)
    if process:
        yield process
