"""A sweep that runs under a scheduler: what is known of it, what the journal says, how it ends."""

import math
import re
import time
from functools import partial
from typing import Any, Generic, TypeVar

from tune_stoppers.core import Decision, SweepRule
from tune_stoppers.experiment.snapshots import SnapshotKeeper
from tune_stoppers.journal.lines import ENDED, LOST, STARTED, UNJUDGED, USER, asked, line_of
from tune_stoppers.tune.horizon_watch import HorizonWatch
from tune_stoppers.tune.live import Live
from tune_stoppers.tune.ray_internals.controller import note_reason
from tune_stoppers.tune.ray_internals.types import PAUSED, PENDING, Controller, Trial
from tune_stoppers.tune.reader import Reading, ResultReader
from tune_stoppers.tune.schedulers.memory import Memory

R = TypeVar("R")

NUMBER = re.compile(r"\d+")


class RunningSweep(Live, Generic[R]):
    """What every scheduler knows only while its sweep runs; `Memory` has what outlives it."""

    def __init__(self, owner: str, rule: SweepRule[R], uid: str, time_attr: str) -> None:
        self.memory: Memory[R] = Memory(owner, rule, uid)
        self.horizon = HorizonWatch(owner, rule, time_attr)
        self.reader: ResultReader | None = None  # made at the first result
        self.snapshots: SnapshotKeeper | None = None
        self.decisions: dict[str, Decision] = {}  # the newest of each trial
        self.reasons: dict[str, str] = {}  # of the trials being stopped
        self.is_sorted = False  # Ray's trials, after a restore
        self.broken: Exception | None = None  # what went wrong while Ray added a trial
        self._closed = False  # the search, once the sweep is over

    # -- what the journal says -----------------------------------------------------------------

    def note(self, trial_id: str, event: str, **numbers: Any) -> None:
        """Journal something done on the rule's behalf, and tell the rule."""
        memory = self.memory
        memory.rule.note(memory.record, trial_id, event, numbers)
        if event == STARTED:
            memory.known(trial_id).started = True
        memory.log_event(trial_id, event, numbers=numbers)

    def log(self, reading: Reading, decision: Decision, sign: int, **more: Any) -> None:
        """Journal a decision; `more`: what else `line_of` takes."""
        report = reading.report
        self.memory.log(
            partial(
                line_of,
                self.memory.owner,
                report.trial_id,
                report.step,
                value_of(reading, sign),
                decision,
                sign=sign,
                now=time.time(),
                since=reading.since_restore,
                metrics=report.metrics,
                **more,
            )
        )

    def end_judged(self, reading: Reading, sign: int, *, whole: bool = False) -> None:
        """The trial has ended with this report; `whole`: it has come to its own end."""
        report, memory = reading.report, self.memory
        memory.known(report.trial_id).end(report.step)  # before the line: a state may follow it
        if whole:
            memory.rule.finished(memory.record, report.trial_id)
        memory.rule.ended(memory.record, report)
        seen: dict[str, Any] = {"metrics": dict(report.metrics)} if report.metrics else {}
        if whole:
            seen["whole"] = True
        value = value_of(reading, sign)
        memory.log_event(report.trial_id, ENDED, step=report.step, value=value, **seen)

    def end_unjudged(self, trial_id: str, step: float | None) -> None:
        """The trial has ended with a result that has nothing to judge."""
        self.memory.rule.unjudged(self.memory.record, trial_id, step)
        self.memory.log_event(trial_id, UNJUDGED, **({} if step is None else {"step": step}))

    def lose(self, trial_id: str) -> None:
        """The trial has crashed, or has been dropped."""
        self.memory.rule.lost(self.memory.record, trial_id)
        self.memory.log_event(trial_id, LOST)

    # -- its end, and requests -----------------------------------------------------------------

    @property
    def over(self) -> str:
        """Why the sweep has ended; "" while it has not."""
        return self.memory.over

    def end(self, controller: Controller, why: str) -> None:
        """End the sweep."""
        self.memory.end(why)
        self._close(controller)

    def asked_by_user(self, trial_id: str) -> str:
        """Why a user wants the trial stopped; "" if none does. The request is met by that."""
        memory = self.memory
        if trial_id not in memory.requested:
            return ""
        why = memory.requested[trial_id]
        memory.honoured(trial_id)
        reason = memory.known(trial_id).stopped = asked(why)
        self.note(trial_id, USER, why=why)
        return reason

    def settle(self, controller: Controller) -> None:
        """Catch up with what was asked for while trials wait, or before a restore."""
        if self.broken is not None:
            raise self.broken
        if self.snapshots is not None:
            self.snapshots.look()
        memory = self.memory
        memory.finish_restore()
        if memory.over and not self._closed:
            self._close(controller)
        requested = memory.requested
        if requested and any(trial_id in memory.trials for trial_id in requested):
            for trial in _waiting(controller):
                if why := self.asked_by_user(trial.trial_id):
                    _stop_waiting(controller, trial, why)

    def _close(self, controller: Controller) -> None:
        """Start nothing more; what runs is stopped at its next report."""
        self._closed = True
        controller.search_alg.set_finished()
        for trial in _waiting(controller):
            _stop_waiting(controller, trial, self.over)


def value_of(reading: Reading, sign: int) -> float | None:
    """The objective in the user's units."""
    loss = reading.report.loss
    return None if loss is None else sign * loss


def number_of(trial: Trial) -> float:
    """Which trial of the sweep it is, from 0 or 1: Ray's tags begin with it. Infinity without."""
    number = NUMBER.match(str(getattr(trial, "experiment_tag", "")))
    return float(number[0]) if number else math.inf


def planned(controller: Controller) -> dict[str, int]:
    """How many trials the sweep is to have, for the journal; {} where Ray does not know it."""
    search = getattr(controller, "search_alg", None)
    count = getattr(search, "total_samples", None)
    return {"planned": count} if isinstance(count, int) and 0 < count < 2**31 else {}


def _waiting(controller: Controller) -> list[Trial]:
    return [t for t in controller.get_trials() if t.status in (PENDING, PAUSED)]


def _stop_waiting(controller: Controller, trial: Trial, why: str) -> None:
    """Stop a trial that is pending or paused: it may never have run."""
    trial.init_local_path()  # without it Ray's ResultGrid fails on a trial never run
    note_reason(trial, why)
    controller.stop_trial(trial)
