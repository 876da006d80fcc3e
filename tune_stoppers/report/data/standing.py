"""How far a sweep is, in words: who failed, who has not ended, who has not even started."""

from __future__ import annotations

from collections.abc import Sequence

from tune_stoppers.experiment.folder import TrialRecord
from tune_stoppers.experiment.listed import FAILED, PAUSED, PENDING, RUNNING, Listing, whole
from tune_stoppers.journal.lines import Line


def standing(
    records: Sequence[TrialRecord], lines: Sequence[Line], listing: Listing, diverged: int = 0
) -> list[str]:
    """A sentence for each thing to know; none of a sweep whose trials have all ended well."""
    count = len(records)
    asleep = [record for record in records if is_to_start(record)]
    open_ = [r for r in records if r.status in (RUNNING, PAUSED, PENDING) and r not in asleep]
    found = []
    if failed := sum(record.status == FAILED for record in records):
        found.append(f"{failed} of {count} trials failed.")
    if diverged:
        found.append(f"{diverged} of {count} trials diverged.")
    if open_:
        parts = {
            RUNNING: "running or cut off",
            PAUSED: "paused",
            PENDING: "waiting to continue",
        }
        told = ", ".join(
            f"{many} {word}"
            for status, word in parts.items()
            if (many := sum(record.status == status for record in open_))
        )
        found.append(
            f"{len(open_)} of {count} trials had not ended when Ray last noted it: {told}."
        )
    if asleep:
        found.append(f"{len(asleep)} of {count} trials have not started.")
    more = planned_in(lines) - count
    if more > 0:
        found.append(f"{more} more trials are planned.")
    elif listing.full:
        found.append("More trials may follow: Ray makes no more of them beforehand.")
    return found


def is_to_start(record: TrialRecord) -> bool:
    """Whether a trial waits for its first start."""
    started = record.listed is not None and record.listed.started
    return record.status == PENDING and not record.rows and not started


def planned_in(lines: Sequence[Line]) -> int:
    """How many trials the sweep is to have, as one of our schedulers noted it; 0 if none did."""
    return max((whole(line.get("planned")) for line in lines), default=0)
