"""Which report does a checkpoint of a class trainable belong to?

Ray saves such a trial after the report, by `checkpoint_frequency`, at its end and when it is
paused, and no result names the checkpoint. But Ray counts: the next one of a trial has a name that
is known before it is written. So a journal has a line for each such report with that name, in case
Ray saves now, and with Ray's `iteration`: the newest line with a name is about the report that the
checkpoint belongs to. A `ResultGrid` knows it too. From a folder without a journal it cannot be
known.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from tune_stoppers.journal.lines import FORGOT, SAVING, Line
from tune_stoppers.metrics import number
from tune_stoppers.result_keys import CHECKPOINT_NAME, TRAINING_ITERATION

NAME, ITERATION = "saves", "iteration"  # keys of a line
CLOCKS_APART = 1.0  # seconds, of storage and driver


class Claim(NamedTuple):
    """A report that a checkpoint may belong to."""

    time: float  # when it was judged, in seconds since the epoch
    iteration: float  # Ray's

    def row_in(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
        """The report in `result.json`; None if it is not there."""
        found = None
        for row in rows:  # a trial that went back has reported an iteration more than once
            reported = number(row.get("timestamp"))
            early = reported is None or reported <= self.time + CLOCKS_APART
            if early and number(row.get(TRAINING_ITERATION)) == self.iteration:
                found = dict(row)
        return found


def claims_in(lines: Iterable[Line]) -> dict[str, dict[str, list[Claim]]]:
    """By trial and name, the reports that a checkpoint may belong to; oldest first, as `lines`."""
    found: dict[str, dict[str, list[Claim]]] = {}
    for line in lines:
        if line.get("event") == FORGOT:
            for gone in line["trials"]:
                found.pop(str(gone), None)
        if line.get("event") != SAVING:
            continue
        name, iteration = line.get(NAME), number(line.get(ITERATION))
        if isinstance(name, str) and iteration is not None:
            of_trial = found.setdefault(line["trial"], {})
            of_trial.setdefault(name, []).append(Claim(float(line["time"]), iteration))
    return found


def rightful(claims: list[Claim], written: Callable[[], float | None]) -> Claim:
    """The one of `claims` that is right: the newest from before the folder was `written`.

    After a kill Ray may count from a lower number again: a name that is promised to a report is,
    until Ray saves, still that of an earlier one.
    """
    time = written() if len(claims) > 1 else None
    before = claims if time is None else [c for c in claims if c.time <= time + CLOCKS_APART]
    return (before or claims)[-1]


def is_of_a_class(rows: list[dict[str, Any]]) -> bool:
    """Whether the results, of which there are some, are those of a class trainable."""
    return bool(rows) and not any(CHECKPOINT_NAME in row for row in rows)
