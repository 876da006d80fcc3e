"""What every scheduler of ours shares: reading, judging, remembering, explaining."""

import math
import re
import time
import uuid
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Generic, TypedDict, TypeVar

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from tune_stoppers.core import (
    Action,
    Decision,
    Mode,
    OnMissing,
    OnNonfinite,
    SweepRule,
    require_choice,
    require_number,
)
from tune_stoppers.experiment.snapshots import SnapshotKeeper
from tune_stoppers.journal.lines import (
    AGAIN,
    ENDED,
    LOST,
    SAVING,
    STARTED,
    UNJUDGED,
    USER,
    asked,
    line_of,
)
from tune_stoppers.metrics import check_metric, number, sign_of, unknown_keyword
from tune_stoppers.result_keys import CHECKPOINT_NAME, DONE, STOP_REASON
from tune_stoppers.tune.class_checkpoints import Saving, saved_at_end, saves_when_asked, saving_at
from tune_stoppers.tune.horizon_watch import HorizonWatch
from tune_stoppers.tune.ray_internals.controller import (
    drop_decision,
    is_resetting,
    note_reason,
    sort_trials,
    write_status,
)
from tune_stoppers.tune.ray_internals.types import PAUSED, PENDING, TERMINATED, Controller, Trial
from tune_stoppers.tune.reader import Reading, ResultReader, clocks_of, warn_out_of_order
from tune_stoppers.tune.restore.mending import mend_before_restore, mend_trial
from tune_stoppers.tune.schedulers.memory import Memory

R = TypeVar("R")

NUMBER = re.compile(r"\d+")
CONTINUE = str(TrialScheduler.CONTINUE)
PAUSE = str(TrialScheduler.PAUSE)
STOP = str(TrialScheduler.STOP)
_ACTIONS = {Action.CONTINUE: CONTINUE, Action.PAUSE: PAUSE, Action.STOP: STOP}


class Common(TypedDict, total=False):
    """The keywords that every scheduler takes, as `SweepScheduler` documents them."""

    metric: str | None
    mode: Mode | None
    time_attr: str
    on_nonfinite: OnNonfinite
    on_missing: OnMissing
    start_after: float
    dry_run: bool


class SweepScheduler(FIFOScheduler, Generic[R]):
    """A `SweepRule` under Ray Tune; subclasses say how its decisions are carried out.

    Args:
        metric, mode: here or in `TuneConfig`; different ones in both are an error.
        time_attr: anything that grows: iterations, steps, tokens, seconds, progress.
        on_nonfinite: "worst" and "stop" are left to the rule; "ignore" leaves the report out.
        on_missing: "raise": Ray itself ends the sweep at a report without the metric; "skip":
            such reports are left out (give the metric here then, not to `TuneConfig`).
        start_after: no decision is taken before this time; everything is recorded.
        dry_run: decisions are journalled, not taken.

    Every judged report is a line of the journal in `tune_stoppers/` of the experiment's folder,
    and what the rule remembers is kept there too: after `Tuner.restore` it decides as if it had
    never been interrupted. Reports that the trials then repeat change nothing.

    `decisions` maps each trial to its newest decision. The last result of a trial that it
    stopped, and so the `ResultGrid`, carries `stop_reason`; `result.json` does not.
    """

    _expected: frozenset[str] = frozenset()  # metrics that a report may lack

    def __init__(
        self,
        rule: SweepRule[R],
        *,
        metric: str | None = None,
        mode: Mode | None = None,
        time_attr: str = "training_iteration",
        on_nonfinite: OnNonfinite = "worst",
        on_missing: OnMissing = "raise",
        start_after: float = 0,
        dry_run: bool = False,
        **unknown: Any,
    ) -> None:
        super().__init__()
        self.name = type(self).__name__
        if unknown:
            raise TypeError(unknown_keyword(type(self), SweepScheduler, next(iter(unknown))))
        self.rule = rule
        require_choice("on_nonfinite", on_nonfinite, ("worst", "stop", "ignore"))
        require_choice("on_missing", on_missing, ("raise", "skip"))
        require_number("start_after", start_after, at_least=0)
        if mode is not None:
            require_choice(f"{self.name} mode", mode, ("min", "max"))
        if not isinstance(dry_run, bool):
            raise TypeError(f"{self.name} dry_run must be True or False, got {dry_run!r}.")
        self._metric, self._mode = metric, mode
        self.time_attr, self.on_missing, self.on_nonfinite = time_attr, on_missing, on_nonfinite
        self.start_after, self.dry_run = start_after, dry_run
        self.decisions: dict[str, Decision] = {}
        self._uid = uuid.uuid4().hex  # Ray restores the scheduler as it was constructed, with this
        self._reader: ResultReader | None = None
        self._memory: Memory[R] = Memory(self.name, rule, self._uid)
        self._horizon = HorizonWatch(self.name, rule, time_attr)
        self._reasons: dict[str, str] = {}  # of the trials being stopped
        self._closed = False  # the search, once the sweep is over
        self._sorted = False  # Ray's trials, after a restore
        self._broken: Exception | None = None  # what went wrong while Ray added a trial

    _snapshots: SnapshotKeeper | None = None  # of the sweep that this process runs

    def __getstate__(self) -> dict[str, Any]:
        """The scheduler as constructed: what happened since is on the experiment's storage."""
        return self.__dict__ | {
            "_memory": Memory(self.name, self.rule, self._uid),
            "_horizon": HorizonWatch(self.name, self.rule, self.time_attr),
            "decisions": {},
            "_reader": None,
            "_reasons": {},
            "_closed": False,
            "_sorted": False,
            "_broken": None,
            "_snapshots": None,
        }

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Also of an earlier version, whose record had other parts."""
        self.__dict__.update(state)
        self._memory = Memory(self.name, self.rule, self._uid)
        self._horizon = HorizonWatch(self.name, self.rule, self.time_attr)
        mend_before_restore()

    @property
    def horizon_note(self) -> str:
        """What was warned of: that `max_t` does not fit the trials' time; "" if nothing was."""
        return self._horizon.note

    # -- what subclasses use and change --------------------------------------------------------

    @property
    def record(self) -> R:
        """What the rule remembers of the sweep."""
        return self._memory.record

    @property
    def sign(self) -> int:
        """1, or -1 where the metric is maximised."""
        return sign_of(self._mode or "min")

    def expect(self, metrics: Iterable[str]) -> None:
        """Take a report without one of these for neutral: a replay knows what its record has."""
        self._expected = frozenset(metrics)

    def reader(self) -> ResultReader:
        """What reads Ray's results for the rule."""
        return ResultReader(self.name, self.rule, **self._reading())

    def act(
        self, controller: Controller, trial: Trial, result: dict[str, Any], decision: Decision
    ) -> str:
        """Carry out a decision that is to be taken; Ray's name for what it should do.

        A trial whose report came without a checkpoint is not paused: Ray would start it again
        from an older one, or from zero. A class trainable is saved as it is paused.
        """
        if decision.action is Action.PAUSE and not result.get(CHECKPOINT_NAME):
            by_ray = CHECKPOINT_NAME not in result and saves_when_asked(trial)
            return PAUSE if by_ray else CONTINUE
        return _ACTIONS[decision.action]

    def ends_sweep(self, decision: Decision) -> bool:
        """Whether a decision that is being taken ends the search as well."""
        return decision.ends_sweep

    def has_checkpoint(self, trial: Trial, saving: Saving) -> bool:
        """Whether this report of a class trainable counts as one that came with a checkpoint."""
        return saving.sure

    def adopted(self, controller: Controller, trial: Trial) -> None:
        """Ray has added `trial`, and what was remembered of it is in the record."""

    def all_adopted(self) -> None:
        """All trials that were there before a restore have been added, in the order of a set."""

    def turn_of(self, trial: Trial) -> tuple[bool, float]:
        """What restored trials are sorted by to start again: those that ran before go first."""
        return self._memory.known(trial.trial_id).time.step is None, number_of(trial)

    # -- Ray's calls ---------------------------------------------------------------------------

    @property
    def metric(self) -> str | None:
        """What Ray insists on finding in every report; None under on_missing="skip"."""
        return self._metric if self.on_missing == "raise" else None

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Take metric and mode from `TuneConfig`; `ValueError` if others were given here."""
        for name, mine, theirs in (
            ("metric", self._metric, metric),
            ("mode", self._mode, mode),
        ):
            if mine is not None and theirs is not None and mine != theirs:
                raise ValueError(
                    f"{self.name} has {name}={mine!r} and TuneConfig {name}={theirs!r}: "
                    "give it in one place."
                )
        self._metric = self._metric or metric
        self._mode = self._mode or mode  # type: ignore[assignment]  # checked by the reader
        if self.rule.needs_objective:
            check_metric(self.name, self._metric, self._mode)
        return True

    def on_trial_add(self, controller: Controller, trial: Trial) -> None:
        """A new trial, one that is tried again, or one of those that Ray has restored."""
        super().on_trial_add(controller, trial)
        drop_decision(controller, trial)
        try:
            if trial.status == PENDING:
                mend_trial(trial)
            self._take_in(controller, trial)
        except Exception as error:
            self._broken = error  # in a restore Ray goes on after it, and waits for ever
            raise

    def on_trial_result(self, controller: Controller, trial: Trial, result: dict[str, Any]) -> str:
        """Judge a report; Ray's name for the action."""
        self._settle(controller)
        self._note_saving(trial, saving_at(trial, result), result)
        reading = self._read(trial.trial_id, result)
        if reading is None:
            return CONTINUE
        memory, step = self._memory, reading.report.step
        self._horizon.reports(trial.trial_id, step, result)
        known = memory.known(trial.trial_id)
        saved = _saved(result)
        if saved and known.repeats(step):  # into a folder that may have held something else
            memory.log_event(trial.trial_id, AGAIN, step=step, value=self._value(reading), **saved)
        if known.catching_up(step):
            return CONTINUE
        if known.stopped:  # before a kill or a crash that came in between
            return self._stop(trial.trial_id, result, known.stopped)
        warn = known.time.in_order
        event = known.time.place(step, reading.since_restore)
        if event == "out of order":
            if warn:
                warn_out_of_order(self.name, trial.trial_id, self.time_attr, step, known.time.step)
            return CONTINUE
        known.metrics = reading.report.metrics
        decision = self.rule.update(
            memory.record,
            reading.report,
            checkpoint=saved.get("checkpoint"),
            since_restore=reading.since_restore,
        )
        self.decisions[trial.trial_id] = decision
        if decision.action is Action.STOP and not self.dry_run and step >= self.start_after:
            known.stopped = self.explain(trial.trial_id)
        if event != "repeat":
            self._log(reading, decision, event, saved)
        return self._take(controller, trial, result, step, decision)

    def on_trial_complete(
        self, controller: Controller, trial: Trial, result: dict[str, Any]
    ) -> None:
        """Record the last report of a trial that ended by itself or by a stopper.

        Of one that this scheduler stopped, before a kill too, the last result gets the reason: what
        was set on the flat result in `on_trial_result` was a copy.
        """
        stopped = self._memory.known(trial.trial_id).stopped
        by_itself = bool(result.get(DONE)) and STOP_REASON not in result and not stopped
        if why := self._reasons.pop(trial.trial_id, stopped):
            note_reason(trial, why)
            by_itself = False
        self._note_saving(trial, saved_at_end(trial, result), {})
        self._end(trial.trial_id, result, by_itself=by_itself)

    def on_trial_error(self, controller: Controller, trial: Trial) -> None:
        """A crash or a lost node is no evidence against a trial."""
        self._lose(trial.trial_id)

    def on_trial_remove(self, controller: Controller, trial: Trial) -> None:
        """A trial that was never run, or is paused, is dropped."""
        self._lose(trial.trial_id)
        write_status(controller, trial)

    def choose_trial_to_run(self, controller: Controller) -> Trial | None:
        """Ray's order: the trial that was added first, of those that wait."""
        self._begin_to_choose(controller)
        first: Trial | None = super().choose_trial_to_run(controller)
        if first is None or not is_resetting(controller, first):
            return first
        waiting = (t for t in controller.get_trials() if t.status == PENDING)
        return next((t for t in waiting if not is_resetting(controller, t)), first)

    def explain(self, trial_id: str) -> str:
        """The newest decision on a trial in words, in the metric's own units."""
        decision = self.decisions.get(trial_id)
        if decision is None:
            return f"{self.name}: nothing judged yet"
        return f"{self.name}: {decision.say(self.sign)}"

    def debug_string(self) -> str:
        """One line."""
        return f"{self.name}: {len(self.decisions)} trials judged"

    # -- inside --------------------------------------------------------------------------------

    def _take_in(self, controller: Controller, trial: Trial) -> None:
        task = {"metric": self._metric, "time_attr": self.time_attr} | _planned(controller)
        known = self._memory.meet(trial, self.sign, **task)
        if self._snapshots is None and self._memory.keeps:
            self._snapshots = SnapshotKeeper(trial.storage)
        if trial.status != TERMINATED:
            known.ended = False  # Ray's memory may be older than its end
        else:
            if known.stopped and STOP_REASON not in (trial.last_result or {}):
                note_reason(trial, known.stopped)
            if not known.ended:
                self._end(trial.trial_id, trial.last_result or {})
        self.adopted(controller, trial)

    def _take(
        self,
        controller: Controller,
        trial: Trial,
        result: dict[str, Any],
        step: float,
        decision: Decision,
    ) -> str:
        """Carry out `decision`, or what a user or the end of the sweep asks for."""
        why = self._over or self._asked_by_user(trial.trial_id)
        taken = decision.action is not Action.CONTINUE
        if not why and (not taken or self.dry_run or step < self.start_after):
            return CONTINUE
        if why:
            action = STOP
        else:
            why = self.explain(trial.trial_id)
            action = self.act(controller, trial, result, decision)
            if self.ends_sweep(decision):
                self._end_sweep(controller, why)
        return self._stop(trial.trial_id, result, why) if action == STOP else action

    def _stop(self, trial_id: str, result: dict[str, Any], why: str) -> str:
        result[STOP_REASON] = self._reasons[trial_id] = why
        return STOP

    def _asked_by_user(self, trial_id: str) -> str:
        requested = self._memory.requested
        if trial_id not in requested:
            return ""
        why = requested[trial_id]
        self._memory.honoured(trial_id)
        reason = self._memory.known(trial_id).stopped = asked(why)
        self._note(trial_id, USER, why=why)
        return reason

    @property
    def _over(self) -> str:
        """Why the sweep has ended."""
        return self._memory.over

    def _begin_to_choose(self, controller: Controller) -> None:
        """Catch up; the first time, all trials that a restore brings back have been added."""
        if not self._sorted and self._broken is None:
            self._sorted = True
            if self._memory.recalled:  # without a restore they are in order, and may be many
                sort_trials(controller, number_of, self.turn_of)
            self.all_adopted()
        self._settle(controller)

    def _settle(self, controller: Controller) -> None:
        """Catch up with what was asked for while trials wait, or before a restore."""
        if self._broken is not None:
            raise self._broken
        if self._snapshots is not None:
            self._snapshots.look()
        memory = self._memory
        memory.settle()
        if memory.over and not self._closed:
            self._close(controller)
        requested = memory.requested
        if requested and any(trial_id in memory.trials for trial_id in requested):
            for trial in _waiting(controller):
                if why := self._asked_by_user(trial.trial_id):
                    _stop_waiting(controller, trial, why)

    def _end_sweep(self, controller: Controller, why: str) -> None:
        self._memory.end(why)
        self._close(controller)

    def _close(self, controller: Controller) -> None:
        """Start nothing more; what runs is stopped at its next report."""
        self._closed = True
        controller.search_alg.set_finished()
        for trial in _waiting(controller):
            _stop_waiting(controller, trial, self._over)

    def _note_saving(self, trial: Trial, saving: Saving | None, result: dict[str, Any]) -> None:
        """Journal what Ray does about a checkpoint at this report of a class trainable.

        One that will be there is named in the result, as it is in a function's.
        """
        if saving is None:
            return
        self._memory.log_event(trial.trial_id, SAVING, **saving.told)
        if self.has_checkpoint(trial, saving):
            result[CHECKPOINT_NAME] = saving.name

    def _note(self, trial_id: str, event: str, **numbers: Any) -> None:
        """Journal something done on the rule's behalf, and tell the rule."""
        self.rule.note(self._memory.record, trial_id, event, numbers)
        if event == STARTED:
            self._memory.known(trial_id).started = True
        self._memory.log_event(trial_id, event, numbers=numbers)

    def _log(
        self, reading: Reading, decision: Decision, event: str | None, saved: dict[str, Any]
    ) -> None:
        if not self._memory.keeps:
            return
        report = reading.report
        self._memory.log(
            partial(
                line_of,
                self.name,
                report.trial_id,
                report.step,
                self._value(reading),
                decision,
                sign=self.sign,
                event=event,
                dry_run=self.dry_run,
                now=time.time(),
                early=report.step < self.start_after,
                since=reading.since_restore,
                metrics=report.metrics,
                **saved,
            )
        )

    def _value(self, reading: Reading) -> float | None:
        """The objective in the user's units."""
        loss = reading.report.loss
        return None if loss is None else self.sign * loss

    def _end(self, trial_id: str, result: dict[str, Any], *, by_itself: bool = False) -> None:
        known = self._memory.known(trial_id)
        reading = self._read(trial_id, result)
        if reading is not None and by_itself and _is_sound(reading):
            step = reading.report.step
            sure = step == known.time.step  # else it may have been stopped by a stopper of Ray's
            self._horizon.ends(trial_id, step, result, sure=sure)
        if reading is None:
            if not known.ended:
                self._end_unjudged(trial_id, number(result.get(self.time_attr)))
        elif not known.ended:
            report = reading.report
            known.end(report.step)  # before the line: a state may follow it at once
            self.rule.ended(self._memory.record, report)
            value = self._value(reading)
            seen = {"metrics": dict(report.metrics)} if report.metrics else {}
            self._memory.log_event(trial_id, ENDED, step=report.step, value=value, **seen)
        known.ended = True
        if trial_id in self._memory.requested:
            self._memory.honoured(trial_id)  # it came too late: nothing is left to stop

    def _end_unjudged(self, trial_id: str, step: float | None) -> None:
        self.rule.unjudged(self._memory.record, trial_id, step)
        self._memory.log_event(trial_id, UNJUDGED, **({} if step is None else {"step": step}))

    def _lose(self, trial_id: str) -> None:
        self.rule.lost(self._memory.record, trial_id)
        self._memory.log_event(trial_id, LOST)

    def _reading(self) -> dict[str, Any]:
        """How results are read: the keywords of a `ResultReader`."""
        return {
            "metric": self._metric if self.rule.needs_objective else None,
            "mode": self._mode or "min",
            "time_attr": self.time_attr,
            "on_missing": self.on_missing,
        }

    def _read(self, trial_id: str, result: dict[str, Any]) -> Reading | None:
        """The report, or None if there is nothing to judge."""
        if self._reader is None:
            if self.rule.needs_objective:
                check_metric(self.name, self._metric, self._mode)
            self._reader = self.reader()
            self._reader.metrics.expected = self._expected
            if any(known.time.step is not None for known in self._memory.trials.values()):
                known_names = {self.time_attr, self._metric or "", *self.rule.reads}
                self._reader.metrics.seen |= known_names  # or the first report had raised
        reading = self._reader.read(trial_id, result)
        if reading is None or (reading.report.loss is None and self.rule.needs_objective):
            return None
        loss = reading.report.loss
        if self.on_nonfinite == "ignore" and loss is not None and not math.isfinite(loss):
            return None
        return reading


def _is_sound(reading: Reading) -> bool:
    """Whether the objective is finite: a trial that ends as it diverges has not come to its end."""
    loss = reading.report.loss
    return loss is None or math.isfinite(loss)


def number_of(trial: Trial) -> float:
    """Which trial of the sweep it is, from 0 or 1: Ray's tags begin with it. Infinity without."""
    number = NUMBER.match(str(getattr(trial, "experiment_tag", "")))
    return float(number[0]) if number else math.inf


def _saved(result: dict[str, Any]) -> dict[str, Any]:
    """What the journal is to keep of the checkpoint that came with a result; {} without one."""
    name = result.get(CHECKPOINT_NAME)
    if not name:
        return {}
    return {"checkpoint": name, "clocks": clocks_of(result)}


def _planned(controller: Controller) -> dict[str, int]:
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
