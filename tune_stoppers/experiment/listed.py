"""The trials of an experiment as Ray's newest snapshot lists them: those that wait too.

Ray keeps `experiment_state-<time>.json` beside the trials' folders, and writes it every ten seconds
or more rarely. It is read as text; what is pickled in it stays the text that it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from tune_stoppers.journal.lines import parsed
from tune_stoppers.metrics import number

# Ray's words
PENDING, RUNNING, PAUSED = "PENDING", "RUNNING", "PAUSED"
TERMINATED, FAILED = "TERMINATED", "ERROR"
UNFINISHED = (PENDING, RUNNING, PAUSED)
PICKLED = "CLOUDPICKLE_FALLBACK"
MOST_PENDING = "_max_pending_trials"  # made before there is a free worker


class Listed(NamedTuple):
    """A trial in Ray's snapshot."""

    trial_id: str
    status: str  # one of Ray's words
    folder: str  # its name; "" if there is none yet
    name: str  # as Ray's tables print it
    config: dict[str, Any]  # what is pickled left out
    started: bool
    failures: int
    done: bool  # its last result ended it
    timestamp: float  # of its last result; NaN: none

    @property
    def cut(self) -> bool:
        """Whether the trial was ended while it ran or waited, not by a report."""
        return self.status == TERMINATED and not self.done

    def tells(self, row: Mapping[str, Any] | None) -> bool:
        """Whether the snapshot is at least as new as `row`, the trial's last report."""
        reported = None if row is None else number(row.get("timestamp"))
        return row is None or (reported is not None and self.timestamp >= reported)


class Listing(NamedTuple):
    """What Ray's newest snapshot says; without one, nothing."""

    trials: Mapping[str, Listed] = {}  # by id
    full: bool = False  # as many wait as Ray makes beforehand: there may be more to come


def listing(snapshot: Any) -> Listing:
    """The trials in the data of a snapshot; what is not as Ray writes it is left out."""
    pairs = snapshot.get("trial_data") if isinstance(snapshot, dict) else None
    trials: dict[str, Listed] = {}
    for pair in pairs if isinstance(pairs, list) else ():
        one = _listed(pair)
        if one is not None:
            trials[one.trial_id] = one
    runner = snapshot.get("runner_data") if isinstance(snapshot, dict) else None
    most = number(runner.get(MOST_PENDING)) if isinstance(runner, dict) else None
    waiting = sum(one.status == PENDING and not one.started for one in trials.values())
    return Listing(trials, most is not None and waiting >= max(most, 2))


def _listed(pair: Any) -> Listed | None:
    if not isinstance(pair, list) or len(pair) != 2:
        return None
    said, met = _data(pair[0]), _data(pair[1])
    trial_id, status = said.get("trial_id"), said.get("status")
    if not isinstance(trial_id, str) or status not in (*UNFINISHED, TERMINATED, FAILED):
        return None
    last = met.get("last_result")
    last = last if isinstance(last, dict) else {}
    timestamp = number(last.get("timestamp"))
    config = said.get("config")
    started = number(met.get("start_time")) is not None or bool(last)
    return Listed(
        trial_id=trial_id,
        # our schedulers hold new trials back by pausing them
        status=PENDING if status == PAUSED and not started else status,
        folder=_text(said.get("relative_logdir")),
        name=_text(said.get("custom_trial_name"))
        or f"{_text(said.get('trainable_name'))}_{trial_id}",
        config=_unpickled(config) if isinstance(config, dict) else {},
        started=started,
        failures=whole(met.get("num_failures")),
        done=bool(last.get("done")),
        timestamp=math.nan if timestamp is None else timestamp,
    )


def whole(value: Any) -> int:
    """A count out of a file; 0 where it is none."""
    count = number(value)
    return int(count) if count is not None and math.isfinite(count) else 0


def _data(text: Any) -> dict[str, Any]:
    try:
        data = parsed(text) if isinstance(text, str) else None
    except ValueError:
        data = None
    return data if isinstance(data, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _unpickled(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _unpickled(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if not (isinstance(value, dict) and value.get("_type") == PICKLED)
    }
