"""Which keys of a report are ours: a trial may have a `progress` or a `stop_reason` of its own."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from tune_stoppers.journal.lines import USER
from tune_stoppers.metrics import number
from tune_stoppers.result_keys import STOP_REASON

PROGRESS = "progress"
BESIDE = ("step", "epoch")  # what TuneCallback always reports with it, and a `best_<metric>`
GIVEN = re.compile(
    r"(\w+)(?:: | fired$| fired; )"
)  # "PatienceStopper: 3 of 3 …", "MyStopper fired"


def share_of(row: Mapping[str, Any]) -> float | None:
    """How much of its training a trial has done, from 0 to 1, as `TuneCallback` reports it.

    None for a `progress` that is the trial's own: it may be in per cent.
    """
    share = number(row.get(PROGRESS))
    if share is None or not 0 <= share <= 1 or any(key not in row for key in BESIDE):
        return None
    has_best = any(key.startswith("best_") and key[len("best_") :] in row for key in row)
    return share if has_best else None


def in_shares(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether no report of a sweep has a `progress` beyond 1: else it is in another unit."""
    return all((number(row.get(PROGRESS)) or 0) <= 1 for row in rows)


def reason_in(row: Mapping[str, Any] | None, owners: Collection[str]) -> str | None:
    """Why one of our stoppers ended the trial by this report; None if it says no such thing.

    `owners`: those that wrote a journal. Of others, a reason begins with the name of a stopper.
    """
    said = None if row is None else row.get(STOP_REASON)
    given = GIVEN.match(said) if isinstance(said, str) else None
    if row is None or given is None:
        return None
    name = given[1]
    if name == USER:
        return str(said) if row.get("done") else None
    ours = name in owners or name.endswith("Stopper") or " fired" in given[0]
    return str(said) if ours else None
