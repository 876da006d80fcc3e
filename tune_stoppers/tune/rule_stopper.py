"""`RuleStopper`: the adapter owns the state of each trial, the rule the choice."""

import inspect
import os
from typing import Any, TypedDict

from tune_stoppers.core import (
    Action,
    After,
    Decision,
    Mode,
    OnMissing,
    OnNonfinite,
    Report,
    Rule,
    require_number,
)
from tune_stoppers.journal import Journal, line_of
from tune_stoppers.metrics import check_metric, closest, logger, sign_of
from tune_stoppers.track import Judgement, Track
from tune_stoppers.tune.combined import ExplainedStopper
from tune_stoppers.tune.reader import ResultReader

WOULD_STOP_REASON = "would_stop_reason"  # set on results under dry_run, where the trial goes on


class RuleStopper(ExplainedStopper):
    """Applies any trial-level rule to each trial of a sweep.

    Args:
        rule: thresholds and limits in it are in loss units: negated where `mode` is "max".
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
        journal: a local file that gets one line for each decision, also for those to go on.

    A trial that is stopped carries `stop_reason` in that result, so that `result.json`, loggers
    and the `ResultGrid` show why. A rule's PAUSE means nothing to a stopper: use `RuleScheduler`.
    Thread-safety: as Ray's own stoppers, called from the controller alone.
    """

    def __init__(
        self,
        rule: Rule,
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
            raise TypeError(_unknown_keyword(type(self), next(iter(unknown))))
        if not isinstance(rule, Rule):
            raise TypeError(f"{self.name} needs a rule of tune_stoppers.rules, got {rule!r}.")
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
        self._reader = ResultReader(
            self.name,
            rule,
            metric=metric,
            mode=mode or "min",
            time_attr=time_attr,
            on_missing=on_missing,
        )
        self._tracks: dict[str, Track] = {}  # pickled by Tune with the experiment
        self._would: dict[str, str] = {}  # trials that a dry run would have stopped, and why
        self._journal = None if journal is None else Journal(journal)

    def judge(self, trial_id: str, result: dict[str, Any]) -> Decision:
        reading = self._reader.read(trial_id, result)
        if reading is None:
            return Decision(Action.CONTINUE, "the result has nothing to judge", self.name)
        track = self._tracks.get(trial_id)
        if track is None:
            track = self._tracks[trial_id] = Track(self.rule)
        judged = track.update(
            reading.report, checkpoint=reading.checkpoint, since_restore=reading.since_restore
        )
        if reading.done:
            track.finish()
        if judged.warn:
            logger.warning(
                "%s: trial %s reports %s = %g after %g without having restarted; such reports "
                "are left out.",
                *(self.name, trial_id, self._reader.time_attr, reading.report.step, track.step),
            )
        self._write(trial_id, reading.report, judged)
        stops = judged.decision.action is Action.STOP
        if self.dry_run and stops:
            self._would.setdefault(trial_id, self.describe(judged.decision))
        if trial_id in self._would:
            result[WOULD_STOP_REASON] = self._would[trial_id]
        if self.dry_run and stops:
            return Decision(Action.CONTINUE, "dry run", self.name, parts=(judged.decision,))
        return judged.decision

    def describe(self, decision: Decision) -> str:
        return f"{self.name}: {decision.say(self._reader.metrics.sign)}"

    def _write(self, trial_id: str, report: Report, judged: Judgement) -> None:
        if self._journal is None or judged.event == "repeat":
            return
        sign = self._reader.metrics.sign
        value = None if report.loss is None else sign * report.loss
        line = line_of(
            self.name,
            trial_id,
            report.step,
            value,
            judged.decision,
            sign=sign,
            event=judged.event,
            dry_run=self.dry_run,
        )
        self._journal.write(line)


def _unknown_keyword(stopper: type[RuleStopper], name: str) -> str:
    """What to say of a keyword that neither the stopper nor `RuleStopper` takes."""
    signatures = (inspect.signature(kind.__init__) for kind in (stopper, RuleStopper))
    taken = {key for signature in signatures for key in signature.parameters}
    known = sorted(taken - {"self", "rule", "common", "unknown"})
    return f"{stopper.__name__} has no parameter {name!r}.{closest(name, known)} It takes: " + (
        ", ".join(known) + "."
    )


class Common(TypedDict, total=False):
    """The keywords that every stopper takes, as `RuleStopper` documents them."""

    time_attr: str
    on_nonfinite: OnNonfinite
    on_missing: OnMissing
    start_after: float
    dry_run: bool
    journal: str | os.PathLike[str] | None


def as_loss(
    stopper: RuleStopper, metric: str | None, mode: Mode | None, name: str, value: float | None
) -> float | None:
    """The parameter `name`, given in the metric's units, as a loss; None stays None."""
    check_metric(type(stopper).__name__, metric, mode)
    if value is None or mode is None:
        return None
    require_number(name, value)
    return sign_of(mode) * value
