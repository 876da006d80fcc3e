"""`RuleStopper`: the adapter owns the state of each trial, the rule the choice.

Over 350 lines by the docstring of `RuleStopper`, the reference of the common keywords.
"""

import math
import os
import time
import uuid
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from tune_stoppers.core import (
    Action,
    After,
    BaseRule,
    Decision,
    Mode,
    OnMissing,
    OnNonfinite,
    require_number,
)
from tune_stoppers.core.track import Judgement, Sessions
from tune_stoppers.experiment.snapshots import SnapshotKeeper
from tune_stoppers.journal.lines import (
    BEGINS,
    CONFIG,
    ENDED,
    RESTORED,
    SAVING,
    STOPPER,
    UNJUDGED,
    USER,
    Journal,
    Line,
    asked,
    event_line,
    line_of,
)
from tune_stoppers.journal.recorder import Recorder
from tune_stoppers.journal.spec import to_spec
from tune_stoppers.metrics import check_metric, unknown_keyword
from tune_stoppers.result_keys import CHECKPOINT_NAME, DONE, TIMESTAMP, WOULD_STOP_REASON
from tune_stoppers.tune.announcing import Verdict, announce
from tune_stoppers.tune.class_checkpoints import Saving, saving_at
from tune_stoppers.tune.horizon_watch import HorizonWatch
from tune_stoppers.tune.live import Live, without_live
from tune_stoppers.tune.ray_internals.frame import calling_trial
from tune_stoppers.tune.reader import Reading, ResultReader, clocks_of, warn_out_of_order
from tune_stoppers.tune.schedulers.memory import fingerprint, told
from tune_stoppers.tune.spending import SpendingReader, reads_spending
from tune_stoppers.tune.stoppers.combinators import ExplainedStopper
from tune_stoppers.tune.storage import recorder_for


class Writing(Live):
    """Where the sweep that this process runs is written to, and what was."""

    def __init__(self) -> None:
        self.recorder: Recorder | None = None
        self.snapshots: SnapshotKeeper | None = None
        self.looked = False  # for the experiment's storage
        self.configs: dict[str, tuple[dict[str, Any], str]] = {}  # of each trial, its fingerprint


class RuleStopper(ExplainedStopper):
    """Applies a rule to the trials of a sweep: to each by itself, or to all of them together.

    Args:
        rule: any rule of `tune_stoppers.rules` that only stops, or one of your own. Thresholds and
            limits in it are in loss units: negated where `mode` is "max". A rule that pauses
            trials, or rolls them back, needs its scheduler.
        metric: what trials report, "eval_loss" or, nested, "eval/loss".
        mode: "min" or "max"; required, never guessed.
        time_attr: what counts as time; a report at a time already seen changes nothing, one at an
            earlier time means that the trial restarted from an earlier point.
        on_nonfinite: "worst" (an evaluation without improvement), "stop" or "ignore"; None: as
            the rule says.
        on_missing: "raise" ends the sweep at a first report without the metric; "skip" waits.
        start_after: the rule sees and counts everything, and decides from this time on.
        dry_run: decisions are journalled, not taken; the result of a trial that would have been
            stopped carries `would_stop_reason` from then on.
        journal: a local file that gets one line for each decision, also for those to continue; by
            default they are written, and then off the controller's thread, to `tune_stoppers/` in
            the experiment's folder, where `best_states` looks for what the results do not say.

    A trial that is stopped carries `stop_reason` in that result, so that `result.json`, loggers
    and the `ResultGrid` show why. A rule's PAUSE means nothing to a stopper: use `RuleScheduler`.
    Thread-safety: as Ray's own stoppers, called from the controller alone.
    """

    def __init__(
        self,
        rule: BaseRule,
        metric: str | None = None,
        mode: Mode | None = None,
        *,
        time_attr: str = "training_iteration",
        on_nonfinite: OnNonfinite | None = None,
        on_missing: OnMissing = "raise",
        start_after: float = 0,
        dry_run: bool = False,
        journal: str | os.PathLike[str] | None = None,
        **unknown: Any,
    ) -> None:
        self.name = type(self).__name__
        if unknown:
            raise TypeError(unknown_keyword(type(self), RuleStopper, next(iter(unknown))))
        check_rule_kind(self.name, rule)
        if on_nonfinite is not None:
            rule = rule.with_policy(on_nonfinite)
        require_number(f"{self.name} start_after", start_after, at_least=0)
        if start_after:
            rule = After(start_after, rule)
        if not isinstance(dry_run, bool):
            raise TypeError(f"{self.name} dry_run must be True or False, got {dry_run!r}.")
        if rule.needs_objective:
            check_metric(self.name, metric, mode)
        else:
            metric = None
        self.rule = rule
        self.dry_run = dry_run
        self._reader = self.reader(
            metric=metric, mode=mode or "min", time_attr=time_attr, on_missing=on_missing
        )
        objective = "" if metric is None else f'"{metric}", "{mode}"'
        self._horizon = HorizonWatch(self.name, rule, time_attr, objective)
        self._sessions = Sessions(rule)  # pickled by Tune with the experiment
        self._would: dict[str, str] = {}  # trials that a dry run would have stopped, and why
        self._journal = None if journal is None else Journal(journal)
        self._uid = uuid.uuid4().hex  # of this run: Tune pickles it with the experiment
        self._live = Writing()

    def __getstate__(self) -> dict[str, Any]:
        """What it remembers of the trials, too: Ray pickles it now and then."""
        return without_live(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Also of an earlier version, which had less to remember."""
        super().__setstate__(state)
        self._live = Writing()
        if "_horizon" not in state:
            self._horizon = HorizonWatch(self.name, self.rule, self._reader.time_attr)

    @property
    def horizon_note(self) -> str:
        """What was warned of: that `max_t` does not fit the trials' time; "" if nothing was."""
        return self._horizon.note

    @property
    def metric(self) -> str | None:
        """The metric that is judged; None where the rule reads others."""
        return self._reader.metrics.metric

    @property
    def mode(self) -> Mode:
        """ "min" or "max"."""
        return self._reader.metrics.mode

    @property
    def record(self) -> Any:
        """What a rule that looks across trials remembers; None for one that does not."""
        return self._sessions.record

    def reader(
        self, *, metric: str | None, mode: Mode, time_attr: str, on_missing: OnMissing
    ) -> ResultReader:
        """What reads Ray's results for the rule: one that counts spending, if the rule asks."""
        kind = SpendingReader if reads_spending(self.rule) else ResultReader
        return kind(
            self.name,
            self.rule,
            metric=metric,
            mode=mode,
            time_attr=time_attr,
            on_missing=on_missing,
        )

    def use_clock(self, clock: Callable[[], float]) -> None:
        """Take the sweep's seconds by another clock from now on: a replay has its own time."""
        if isinstance(self._reader, SpendingReader):
            self._reader.spending.use(clock)

    def judge(self, trial_id: str, result: dict[str, Any]) -> Decision:
        self._open(trial_id)
        if self._live.snapshots is not None:
            self._live.snapshots.look()
        self._note_config(trial_id, result)
        saving = self._note_saving(trial_id, result)
        if self._live.recorder is not None and trial_id in self._live.recorder.requested:
            return self._stop_for_user(trial_id, self._live.recorder)
        reading = self._reader.read(trial_id, result)
        if reading is None:
            if result.get(DONE):
                self._log(lambda: event_line(self.name, trial_id, UNJUDGED))
            return Decision(Action.CONTINUE, "the result has nothing to judge", self.name)
        seen, loss = reading.report.step, reading.report.loss
        if reading.done and (loss is None or math.isfinite(loss)):
            self._horizon.ends(trial_id, seen, result, sure=True)
        else:
            self._horizon.reports(trial_id, seen, result)
        session = self._sessions.of(trial_id)
        kept = reading.checkpoint if saving is None else saving.may_come_back
        judged = session.update(
            reading.report, checkpoint=kept, since_restore=reading.since_restore
        )
        if judged.warn:
            warn_out_of_order(
                self.name, trial_id, self._reader.time_attr, reading.report.step, session.step
            )
        named = saving.name if saving and saving.sure else kept
        self._write(reading, judged, named, result)
        if reading.done:
            session.finish()
            step = reading.report.step
            self._log(lambda: event_line(self.name, trial_id, ENDED, step=step))
        sign = self._reader.metrics.sign
        announce(Verdict(trial_id, self.name, judged.decision, sign, seen, self.dry_run))
        stops = judged.decision.action is Action.STOP
        if stops and not self.dry_run:
            session.cut(reading.report)
        if self.dry_run and stops:
            self._would.setdefault(trial_id, self.describe(judged.decision))
        if trial_id in self._would:
            result[WOULD_STOP_REASON] = self._would[trial_id]
        if self.dry_run and stops:
            return Decision(Action.CONTINUE, "dry run", self.name, parts=(judged.decision,))
        return judged.decision

    def expect(self, metrics: Iterable[str]) -> None:
        """Take a report without one of these for neutral: a replay knows what its record has."""
        self._reader.metrics.expected = frozenset(metrics)

    def describe(self, decision: Decision) -> str:
        said = decision.say(self._reader.metrics.sign)
        return said if decision.rule == USER else f"{self.name}: {said}"

    def _write(
        self, reading: Reading, judged: Judgement, checkpoint: str | bool, result: dict[str, Any]
    ) -> None:
        """Journal a decision; `checkpoint`: what is known of it where `result` has no name."""
        if judged.event == "repeat" or (self._journal is None and self._live.recorder is None):
            return
        report, sign = reading.report, self._reader.metrics.sign
        name = result.get(CHECKPOINT_NAME)
        line = partial(
            line_of,
            self.name,
            report.trial_id,
            report.step,
            None if report.loss is None else sign * report.loss,
            judged.decision,
            sign=sign,
            event=judged.event,
            dry_run=self.dry_run,
            now=time.time(),
            metrics=report.metrics,
            checkpoint=name or checkpoint,
            clocks=clocks_of(result) if name else {},
            since=reading.since_restore,
        )
        self._log(line)

    def _note_saving(self, trial_id: str, result: dict[str, Any]) -> Saving | None:
        """Journal what Ray does about a checkpoint at this report of a class trainable."""
        if CHECKPOINT_NAME in result:
            return None
        saving = saving_at(calling_trial(trial_id), result)
        if saving is not None and self._live.recorder is not None and self._journal is None:
            line = event_line(self.name, trial_id, SAVING, **saving.told)
            self._live.recorder.write(lambda: line)
        return saving

    def _note_config(self, trial_id: str, result: dict[str, Any]) -> None:
        """Journal the configuration of a trial at its first report, and each that follows."""
        config = result.get("config")
        if self._live.recorder is None or self._journal is not None or not isinstance(config, dict):
            return
        known, before = self._live.configs.get(trial_id, ({}, ""))
        if _equal(known, config) and before:
            return
        self._live.configs[trial_id] = config, (now := fingerprint(config))
        if now != before:
            more = {"config": now, "reported": result.get(TIMESTAMP)}
            line = event_line(self.name, trial_id, CONFIG, **more, **told(config))
            self._live.recorder.write(lambda: line)

    def _log(self, line: Callable[[], Line]) -> None:
        if self._journal is not None:
            self._journal.write(line())
        elif self._live.recorder is not None:
            self._live.recorder.write(line)

    def _open(self, trial_id: str) -> None:
        """Find the experiment's storage, once in each process."""
        if self._live.looked:
            return
        self._live.looked = True
        trial = calling_trial(trial_id)
        self._live.recorder = None if trial is None else recorder_for(trial, self.name, self._uid)
        if trial is None or self._live.recorder is None:
            return
        self._live.snapshots = SnapshotKeeper(trial.storage)
        again = self._live.recorder.go_on()
        self._live.recorder.watch()
        event = RESTORED if again else BEGINS
        metrics = self._reader.metrics
        line = event_line(
            self.name,
            "",
            event,
            by=STOPPER,
            rule=repr(self.rule),
            spec=to_spec(self.rule),
            metric=metrics.metric,
            sign=metrics.sign,
            time_attr=self._reader.time_attr,
        )
        self._log(lambda: line)

    def _stop_for_user(self, trial_id: str, recorder: Recorder) -> Decision:
        why = recorder.requested[trial_id]
        recorder.honoured(trial_id)
        line = event_line(self.name, trial_id, USER, numbers={"why": why})
        self._log(lambda: line)
        return Decision(Action.STOP, asked(why), USER)


def _equal(one: Any, other: Any) -> bool:
    """Whether two configurations are the same; arrays in them have no one answer."""
    try:
        return bool(one == other)
    except (ValueError, RuntimeError):  # of numpy and torch
        return False


def check_rule_kind(owner: str, rule: Any) -> None:
    """Raise `TypeError` unless `rule` is one that only stops trials."""
    if not isinstance(rule, BaseRule):
        raise TypeError(f"{owner} needs a rule of tune_stoppers.rules, got {rule!r}.")
    if rule.scheduler:
        raise TypeError(
            f"{owner} cannot carry out what {rule.name} asks for: use {rule.scheduler}."
        )
