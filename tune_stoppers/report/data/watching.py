"""A running sweep as it goes: what happens, one event after the other, until it has ended."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from pyarrow import fs

from tune_stoppers.experiment.folder import SNAPSHOT, UNKNOWN, Experiment, ExperimentError
from tune_stoppers.experiment.following import Follower
from tune_stoppers.experiment.journals import merged
from tune_stoppers.experiment.listed import FAILED, PENDING, RUNNING, TERMINATED
from tune_stoppers.experiment.snapshots import TUNER
from tune_stoppers.journal.lines import BEGINS, RESTORED, Line
from tune_stoppers.metrics import number
from tune_stoppers.report import compute
from tune_stoppers.report.data.explain import Explained, number_of
from tune_stoppers.report.data.savings import left_of
from tune_stoppers.report.data.standing import planned_in

Event = dict[str, Any]

POLL_SECONDS = {True: 0.5, False: 2.0}  # between two looks at the journals: on a local disk, or not
READ_SECONDS = {True: 5.0, False: 15.0}  # at least, between two readings of the whole folder
READ_SHARE = 20  # reading takes at most one part in so many of the time
QUIET_SECONDS = 15.0  # Ray's snapshots lag by ten: with nothing new for so long, no trial follows


class Watch:
    """Follows the sweep in a folder; `poll` gives what is new.

    Events are dictionaries with `kind`, `time` (seconds since the epoch) and

    - "decision": a line of the journal with an `action`, as `journal.lines` describes it;
    - "event": any other line of the journal, with its `event`;
    - "best": a value that is better than all before it: `trial`, `step`, `value`, `metric`;
    - "status": a trial has another one in Ray's words: `trial`, `status`, `reason`;
    - "end": the sweep has ended: `trials` (how many of each status), `best`, and what it took.

    Lines of the journal come within a second of the decision (three seconds on object storage);
    statuses are those of Ray's snapshots, ten seconds old.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.ended = False
        self.best: Event | None = None
        self.told: Explained | None = None  # of the last reading
        self.heard = time.time()  # when something was last new
        self._local = isinstance(experiment.filesystem, fs.LocalFileSystem)
        self.pause = POLL_SECONDS[self._local]
        self._follower = Follower(experiment.filesystem, experiment.root)
        self._signs: dict[str, tuple[str, int]] = {}  # of each run: metric and sign
        self._statuses: dict[str, str] = {}
        self._due = -math.inf

    @classmethod
    def at(cls, path: str | os.PathLike[str], filesystem: fs.FileSystem | None = None) -> Watch:
        """Of the sweep in this folder, or at this URI. `ExperimentError` if there is none."""
        experiment = Experiment.at(path, filesystem)
        selector = fs.FileSelector(experiment.root)
        names = [info.base_name for info in experiment.filesystem.get_file_info(selector)]
        if not any(name == TUNER or SNAPSHOT.fullmatch(name) for name in names):
            experiment.trials()  # raises if it is none
        return cls(experiment)

    def poll(self) -> list[Event]:
        """What has happened since the last call; the last event of all is the end."""
        events = [event for one in self._follower.new() for event in self._of_line(*one)]
        if self._due <= time.monotonic():
            events += self._read()
        if events:
            self.heard = time.time()
        return events

    def _of_line(self, run: str, line: Line) -> Iterator[Event]:
        if line.get("event") in (BEGINS, RESTORED) and line.get("metric"):
            self._signs.setdefault(run, (str(line["metric"]), -1 if line.get("sign") == -1 else 1))
        yield {"kind": "decision" if "action" in line else "event"} | line
        value = number_of(line.get("value")) if "action" in line else None
        metric, sign = self._signs.get(run, ("", 0))
        if value is None or not math.isfinite(value) or not self._is_main(metric):
            return
        if self.best is None or sign * value < sign * self.best["value"]:
            at = {"time": line["time"], "trial": line["trial"], "step": line["step"]}
            self.best = {"kind": "best", **at, "value": value, "metric": metric}
            yield self.best

    def _is_main(self, metric: str) -> bool:
        """Whether it is the metric of the first run that has one: others are not comparable."""
        first = next(iter(self._signs.values()), ("", 0))
        return bool(metric) and metric == first[0]

    def _read(self) -> Iterator[Event]:
        begin = time.monotonic()
        self.experiment = Experiment(self.experiment.filesystem, self.experiment.root)
        try:
            told = self.told = Explained.of(self.experiment)
        except ExperimentError:  # no trial has begun yet
            told = None
        took = time.monotonic() - begin
        self._due = begin + max(READ_SECONDS[self._local], READ_SHARE * took)
        if told is None:
            return
        for trial in told.trials:
            status = trial.record.status
            if self._statuses.get(trial.trial_id) != status:
                self._statuses[trial.trial_id] = status
                said = {"trial": trial.trial_id, "status": status, "reason": trial.ending.reason}
                yield {"kind": "status", "time": round(time.time(), 3), **said}
        if self._is_over(told):
            self.ended = True
            for one in self._follower.new():  # written while the folder was read
                yield from self._of_line(*one)
            yield self._end(told)

    def _is_over(self, told: Explained) -> bool:
        """Whether every trial has ended, and no other is to come."""
        listing, planned = self.experiment.listing(), planned_in(merged(told.runs))
        ends = (TERMINATED, FAILED) if listing.trials else (TERMINATED, FAILED, UNKNOWN)
        if any(trial.record.status not in ends for trial in told.trials) or listing.full:
            return False
        failed = any(
            trial.record.status == FAILED for trial in told.trials
        )  # it may be tried again
        if planned and not failed:
            return len(told.trials) >= planned
        return time.time() - self._newest(told) > QUIET_SECONDS

    def _newest(self, told: Explained) -> float:
        """When the sweep was last heard of, in seconds since the epoch."""
        rows = (
            trial.record.rows[-1].get("timestamp") for trial in told.trials if trial.record.rows
        )
        lines = (run.lines[-1].get("time") for run in told.runs if run.lines)
        return max((number(when) or 0.0 for when in (*rows, *lines)), default=0.0)

    def _end(self, told: Explained) -> Event:
        best = None if self.best is None else {k: v for k, v in self.best.items() if k != "kind"}
        counts = dict(Counter(trial.record.status for trial in told.trials))
        now = {"kind": "end", "time": round(time.time(), 3)}
        return now | {"trials": counts, "best": best} | compute.facts(told.totals)


def seconds_left(told: Explained) -> float:
    """How long the sweep still takes if no trial is stopped any more; NaN: not known.

    What the open trials have left by their own pace, and what those to come take at the mean of
    those that have ended, shared out among the trials that run now.
    """
    left = left_of(told.courses, told.time_attr)
    pairs = list(zip(told.trials, left, strict=True))
    open_ = [(t, x) for t, x in pairs if t.record.status not in (TERMINATED, FAILED, UNKNOWN)]
    begun = [x for t, x in open_ if t.record.rows]
    to_come = sum(not t.record.rows for t, _ in open_)
    to_come += max(planned_in(merged(told.runs)) - len(told.trials), 0)
    workers = sum(t.record.status == RUNNING for t, _ in open_)
    ended = sum(t.record.status == TERMINATED and bool(t.record.rows) for t in told.trials)
    if not open_ and not to_come:
        return 0.0
    per_trial = told.totals.spent / ended if ended and told.totals.spent > 0 else math.nan
    if to_come and math.isnan(per_trial):
        per_trial = max((x for t, x in open_ if not t.record.rows), default=math.nan)
    return (sum(begun) + (to_come * per_trial if to_come else 0.0)) / max(workers, 1)


def open_first(status: str) -> int:
    """Where a trial with this status stands in a list: what runs first, then what waits."""
    return {RUNNING: 0, "PAUSED": 1, PENDING: 3}.get(status, 2)
