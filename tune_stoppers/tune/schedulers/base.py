"""What every scheduler of this package shares: reading, judging, explaining.

Over 350 lines, as it has each of Ray's calls and each hook with its promise.
"""

import math
import uuid
from collections.abc import Iterable, Mapping
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
    SAVING,
)
from tune_stoppers.metrics import check_metric, number, sign_of, unknown_keyword
from tune_stoppers.result_keys import CHECKPOINT_NAME, DONE, STOP_REASON
from tune_stoppers.tune.announcing import Verdict, announce
from tune_stoppers.tune.class_checkpoints import Saving, saved_at_end, saves_when_asked, saving_at
from tune_stoppers.tune.live import without_live
from tune_stoppers.tune.ray_internals.controller import (
    drop_decision,
    is_resetting,
    note_reason,
    sort_trials,
    write_status,
)
from tune_stoppers.tune.ray_internals.frame import calling_result
from tune_stoppers.tune.ray_internals.types import PENDING, TERMINATED, Controller, Trial
from tune_stoppers.tune.reader import Reading, ResultReader, clocks_of, warn_out_of_order
from tune_stoppers.tune.restore.mending import mend_before_restore, mend_trial
from tune_stoppers.tune.schedulers.memory import Memory
from tune_stoppers.tune.schedulers.running import RunningSweep, number_of, planned, value_of
from tune_stoppers.tune.schedulers.signatures import spell_out

R = TypeVar("R")

CONTINUE = str(TrialScheduler.CONTINUE)
PAUSE = str(TrialScheduler.PAUSE)
STOP = str(TrialScheduler.STOP)
_ACTIONS = {Action.CONTINUE: CONTINUE, Action.PAUSE: PAUSE, Action.STOP: STOP}


class CommonButNonfinite(TypedDict, total=False):
    """`Common` without `on_nonfinite`, for a scheduler that has a default of its own for it."""

    metric: str | None
    mode: Mode | None
    time_attr: str
    on_missing: OnMissing
    start_after: float
    dry_run: bool


class Common(CommonButNonfinite, total=False):
    """The keywords that every scheduler takes, as `SweepScheduler` documents them."""

    on_nonfinite: OnNonfinite


class SweepScheduler(FIFOScheduler, Generic[R]):
    """A `SweepRule` under Ray Tune; subclasses say how its decisions are carried out.

    Args:
        metric, mode: what trials report, "eval_loss" or, nested, "eval/loss", and "min" or "max";
            here or in `TuneConfig`; different ones in both are an error.
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
    stopped carries `stop_reason`, in the `ResultGrid`, in `result.json` and for loggers.
    """

    _expected: frozenset[str] = frozenset()  # metrics that a report may lack

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        spell_out(cls, SweepScheduler)

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
        self._uid = uuid.uuid4().hex  # Ray restores the scheduler as it was constructed, with this
        self._begin()

    def _begin(self) -> None:
        """Begin with nothing: as it is constructed, and as Ray restores it."""
        self._sweep: RunningSweep[R] = RunningSweep(self.name, self.rule, self._uid, self.time_attr)

    def __getstate__(self) -> dict[str, Any]:
        """The scheduler as constructed: what happened since is on the experiment's storage."""
        return without_live(self.__dict__)

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Also of an earlier version, which had more parts."""
        self.__dict__.update(state)
        self._begin()
        mend_before_restore()

    @property
    def horizon_note(self) -> str:
        """What was warned of: that `max_t` does not fit the trials' time; "" if nothing was."""
        return self._sweep.horizon.note

    @property
    def decisions(self) -> dict[str, Decision]:
        """The newest decision on each trial."""
        return self._sweep.decisions

    # -- what subclasses use and change --------------------------------------------------------

    @property
    def _memory(self) -> Memory[R]:
        """What is remembered across a restore."""
        return self._sweep.memory

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

    def on_change(self) -> None:
        """A trial is added, leaves, or is about to be paused or stopped: who is next may change."""

    def on_trial_adopted(self, controller: Controller, trial: Trial) -> None:
        """Ray has added `trial`, and what was remembered of it is in the record."""

    def on_trials_restored(self) -> None:
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
            self._register(controller, trial)
        except Exception as error:
            self._sweep.broken = error  # in a restore Ray continues after it, and waits for ever
            raise

    def on_trial_result(self, controller: Controller, trial: Trial, result: dict[str, Any]) -> str:
        """Judge a report; Ray's name for the action."""
        sweep, trial_id = self._sweep, trial.trial_id
        sweep.settle(controller)
        self._note_saving(trial, saving_at(trial, result), result)
        reading = self._read(trial_id, result)
        if reading is None:
            return CONTINUE
        memory, step = sweep.memory, reading.report.step
        sweep.horizon.reports(trial_id, step, result)
        known = memory.known(trial_id)
        checkpoint = result.get(CHECKPOINT_NAME) or None
        if checkpoint and known.repeats(step):  # into a folder that may have held something else
            value = value_of(reading, self.sign)
            memory.log_event(trial_id, AGAIN, step=step, value=value, **_saved(result))
        if known.catching_up(step):
            return CONTINUE
        if known.stopped:  # before a kill or a crash that came in between
            return self._stop(trial_id, result, known.stopped)
        warn = known.time.in_order
        event = known.time.place(step, reading.since_restore)
        if event == "out of order":
            if warn:
                warn_out_of_order(self.name, trial_id, self.time_attr, step, known.time.step)
            return CONTINUE
        known.metrics = reading.report.metrics
        decision = self.rule.update(
            memory.record,
            reading.report,
            checkpoint=checkpoint,
            since_restore=reading.since_restore,
        )
        sweep.decisions[trial_id] = decision
        if decision.action is Action.STOP and not self.dry_run and step >= self.start_after:
            known.stopped = self.explain(trial_id)
        if event != "repeat" and memory.keeps:
            early = step < self.start_after
            how = {"event": event, "early": early, "dry_run": self.dry_run}
            sweep.log(reading, decision, self.sign, **how, **_saved(result))
        action = self._take(controller, trial, result, step, decision)
        early, paused = step < self.start_after, action == PAUSE
        told = Verdict(trial_id, self.name, decision, self.sign, step, self.dry_run, early, paused)
        announce(told)
        return action

    def on_trial_complete(
        self, controller: Controller, trial: Trial, result: dict[str, Any]
    ) -> None:
        """Record the last report of a trial that ended by itself or by a stopper.

        Of one that this scheduler stopped, before a kill too, the last result gets the reason: it
        may have been stopped while it waited, or at a report before the kill.
        """
        self.on_change()
        stopped = self._memory.known(trial.trial_id).stopped
        by_itself = bool(result.get(DONE)) and STOP_REASON not in result and not stopped
        if why := self._sweep.reasons.pop(trial.trial_id, stopped):
            note_reason(trial, why)
            by_itself = False
        self._note_saving(trial, saved_at_end(trial, result), {})
        self._end(trial.trial_id, result, by_itself=by_itself)

    def on_trial_error(self, controller: Controller, trial: Trial) -> None:
        """A crash or a lost node is no evidence against a trial."""
        self.on_change()
        self._sweep.lose(trial.trial_id)

    def on_trial_remove(self, controller: Controller, trial: Trial) -> None:
        """A trial that was never run, or is paused, is dropped."""
        self.on_change()
        self._sweep.lose(trial.trial_id)
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

    def _register(self, controller: Controller, trial: Trial) -> None:
        task = {"metric": self._metric, "time_attr": self.time_attr} | planned(controller)
        known = self._memory.register(trial, self.sign, **task)
        if self._sweep.snapshots is None and self._memory.keeps:
            self._sweep.snapshots = SnapshotKeeper(trial.storage)
        if trial.status != TERMINATED:
            known.ended = False  # Ray's memory may be older than its end
        else:
            if known.stopped and STOP_REASON not in (trial.last_result or {}):
                note_reason(trial, known.stopped)
            if not known.ended:
                self._end(trial.trial_id, trial.last_result or {})
        self.on_change()
        self.on_trial_adopted(controller, trial)

    def _take(
        self,
        controller: Controller,
        trial: Trial,
        result: dict[str, Any],
        step: float,
        decision: Decision,
    ) -> str:
        """Carry out `decision`, or what a user or the end of the sweep asks for."""
        why = self._sweep.over or self._sweep.asked_by_user(trial.trial_id)
        taken = decision.action is not Action.CONTINUE
        if not why and (not taken or self.dry_run or step < self.start_after):
            return CONTINUE
        if why:
            action = STOP
        else:
            self.on_change()
            action = self.act(controller, trial, result, decision)
            why = self.explain(trial.trial_id)
            if self.ends_sweep(decision):
                self._sweep.end(controller, why)
        return self._stop(trial.trial_id, result, why) if action == STOP else action

    def _stop(self, trial_id: str, result: dict[str, Any], why: str) -> str:
        result[STOP_REASON] = self._sweep.reasons[trial_id] = why
        logged = calling_result(trial_id)  # `result` is a flat copy of it
        if logged is not None:
            logged[STOP_REASON] = why
        return STOP

    def _begin_to_choose(self, controller: Controller) -> None:
        """Catch up; the first time, all trials that a restore brings back have been added."""
        sweep = self._sweep
        if not sweep.is_sorted and sweep.broken is None:
            sweep.is_sorted = True
            if self._memory.recalled:  # without a restore they are in order, and may be many
                sort_trials(controller, number_of, self.turn_of)
            self.on_trials_restored()
        sweep.settle(controller)

    def _note_saving(self, trial: Trial, saving: Saving | None, result: dict[str, Any]) -> None:
        """Journal what Ray does about a checkpoint at this report of a class trainable.

        One that will be there is named in the result, as it is in a function's.
        """
        if saving is None:
            return
        self._memory.log_event(trial.trial_id, SAVING, **saving.told)
        if self.has_checkpoint(trial, saving):
            result[CHECKPOINT_NAME] = saving.name

    def _end(self, trial_id: str, result: dict[str, Any], *, by_itself: bool = False) -> None:
        known = self._memory.known(trial_id)
        reading = self._read(trial_id, result)
        if reading is not None and by_itself and _is_sound(reading):
            step = reading.report.step
            sure = step == known.time.step  # else it may have been stopped by a stopper of Ray's
            self._sweep.horizon.ends(trial_id, step, result, sure=sure)
        if reading is None:
            if not known.ended:
                self._sweep.end_unjudged(trial_id, number(result.get(self.time_attr)))
        elif not known.ended:
            whole = by_itself and _is_sound(reading)
            self._sweep.end_judged(reading, self.sign, whole=whole)
        known.ended = True
        if trial_id in self._memory.requested:
            self._memory.honoured(trial_id)  # it came too late: nothing is left to stop

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
        reader = self._sweep.reader
        if reader is None:
            if self.rule.needs_objective:
                check_metric(self.name, self._metric, self._mode)
            reader = self._sweep.reader = self.reader()
            reader.metrics.expected = self._expected.union(self.rule.may_lack)
            if any(known.time.step is not None for known in self._memory.trials.values()):
                known_names = {self.time_attr, self._metric or "", *self.rule.reads}
                reader.metrics.seen |= known_names  # or the first report had raised
        reading = reader.read(trial_id, result)
        if reading is None or not self.rule.judges(reading.report):
            return None
        loss = reading.report.loss
        if self.on_nonfinite == "ignore" and loss is not None and not math.isfinite(loss):
            return None
        return reading


def _is_sound(reading: Reading) -> bool:
    """Whether the objective is finite: a trial that ends as it diverges has not come to its end."""
    loss = reading.report.loss
    return loss is None or math.isfinite(loss)


def _saved(result: dict[str, Any]) -> dict[str, Any]:
    """What the journal is to keep of the checkpoint that came with a result; {} without one."""
    name = result.get(CHECKPOINT_NAME)
    if not name:
        return {}
    return {"checkpoint": name, "clocks": clocks_of(result)}
