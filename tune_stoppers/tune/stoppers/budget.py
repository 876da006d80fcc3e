"""`BudgetStopper`: counts the time that Ray's results say was spent, and asks `rules.Budget`."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Unpack

from ray.tune import Stopper

from tune_stoppers.core import Decision, Mode, OnMissing, Report
from tune_stoppers.journal.lines import OVER, event_line
from tune_stoppers.metrics import Reads, logger, number
from tune_stoppers.result_keys import (
    PID,
    SINCE_RESTORE,
    TIME_THIS_ITER_S,
    TIME_TOTAL_S,
    TIMESTAMP,
    TRAINING_ITERATION,
)
from tune_stoppers.rules.trial.budget import SWEEP_ACTIVE_SECONDS, TRIAL_ACTIVE_SECONDS, Budget
from tune_stoppers.training.spending import TOTALS, Spending
from tune_stoppers.tune.reader import Reading, ResultReader
from tune_stoppers.tune.stoppers.base import Common, RuleStopper

ACTIVE = (TRIAL_ACTIVE_SECONDS, SWEEP_ACTIVE_SECONDS)

# what two results have in common only if they are the same one
IDENTITY = (TRAINING_ITERATION, SINCE_RESTORE, TIME_THIS_ITER_S, TIME_TOTAL_S, TIMESTAMP, PID)


@dataclass(frozen=True)
class _Read:
    """What is read of a result for a rule with budgets: the time it took, not the totals."""

    rule: Reads

    @property
    def reads(self) -> tuple[str, ...]:
        asked = self.rule.reads
        took = (TIME_THIS_ITER_S,) if any(name in asked for name in ACTIVE) else ()
        return (*(name for name in asked if name not in TOTALS), *took)

    @property
    def needs_objective(self) -> bool:
        return self.rule.needs_objective


class SpendingReader(ResultReader):
    """Counts the time of each result that is work done, and adds the totals to its report.

    Work counts once and for all: a trial that goes back and does it again has spent both. Only a
    result that is the trial's newest once more (Ray shows a function's last one twice) is no work.
    A negative time counts as none. Nor does one that is not finite, and the active seconds are NaN
    in that report, so that `on_nonfinite` says what becomes of it.
    """

    def __init__(
        self,
        owner: str,
        rule: Reads,
        *,
        metric: str | None = None,
        mode: Mode = "min",
        time_attr: str,
        on_missing: OnMissing,
    ) -> None:
        super().__init__(
            owner, _Read(rule), metric=metric, mode=mode, time_attr=time_attr, on_missing=on_missing
        )
        self.spending = Spending()
        self._newest: dict[str, tuple[float | None, ...]] = {}  # identity of each trial's result

    def is_new(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Whether `result` is not the trial's newest once more."""
        return self._newest.get(trial_id) != self._identity(result)

    def read(self, trial_id: str, result: Mapping[str, Any]) -> Reading | None:
        took = number(result.get(TIME_THIS_ITER_S))
        if took is not None and math.isfinite(took) and self.is_new(trial_id, result):
            self.spending.add(trial_id, took)
        self._newest[trial_id] = self._identity(result)
        reading = super().read(trial_id, result)
        if reading is None:
            return None
        totals = self.spending.totals(trial_id)
        if took is not None and not math.isfinite(took):
            totals |= dict.fromkeys(ACTIVE, math.nan)
        report = reading.report
        return reading._replace(report=report._replace(metrics={**report.metrics, **totals}))

    def _identity(self, result: Mapping[str, Any]) -> tuple[float | None, ...]:
        return tuple(number(result.get(key)) for key in (self.time_attr, *IDENTITY))


class BudgetStopper(RuleStopper):
    """Ends a trial, or the sweep, when the time it was given is spent; needs no metric and no mode.

    ::

        BudgetStopper(trial_seconds=3600)  # of one trial's work
        BudgetStopper(gpu_hours=100, gpus_per_trial=2)  # of all trials together
        BudgetStopper(sweep_seconds=8 * 3600, on_end="drain")

    Active time, of `trial_seconds` and `gpu_hours`, is the sum of `time_this_iter_s` over a trial's
    reports: work that a restart lost and did again counts twice, waiting in a queue, paused or
    between a crash and `Tuner.restore` not at all. `sweep_seconds` is by a clock that does not run
    between a crash and `Tuner.restore`. All are kept with the experiment.

    At the end of a sweep's budget, "kill" ends every trial at once; `sweep_seconds` does so also
    while no trial reports. "drain" ends each trial at its next report. A stopper cannot keep Ray
    from starting trials: those that start after that end at their first report. `rules.Budget`
    has the formula, `RuleStopper` the common keywords.
    """

    def __init__(
        self,
        trial_seconds: float | None = None,
        sweep_seconds: float | None = None,
        gpu_hours: float | None = None,
        gpus_per_trial: float = 1,
        on_end: Literal["kill", "drain"] = "kill",
        **common: Unpack[Common],
    ) -> None:
        rule = Budget(trial_seconds, sweep_seconds, gpu_hours, gpus_per_trial, on_end)
        super().__init__(rule, **common)
        self._reader: SpendingReader = SpendingReader(
            self.name,
            rule,
            time_attr=self._reader.time_attr,
            on_missing=self._reader.metrics.on_missing,
        )

    def judge(self, trial_id: str, result: dict[str, Any]) -> Decision:
        if self._reader.is_new(trial_id, result):
            self._tracks.pop(trial_id, None)  # totals only grow: a restart has nothing to put back
        return super().judge(trial_id, result)

    def stop_all(self) -> bool:
        """Whether the sweep is over; the clock alone can end it, between two reports."""
        now = Report("", -math.inf, None, self._reader.spending.totals(""))  # starts the clock
        if self._ended or self.dry_run:
            return self._ended
        _, decision = self.rule.update(self.rule.init(), now)
        if decision.ends_sweep:
            self._ended = True
            why = self.describe(decision)
            self._log(lambda: event_line(self.name, "", OVER, why=why))
            logger.warning("%s: every trial ends.", why)
        return self._ended

    def use_clock(self, clock: Callable[[], float]) -> None:
        """Take `sweep_seconds` by another clock from now on."""
        self._reader.spending.use(clock)


def use_clock(stopper: Stopper, clock: Callable[[], float]) -> None:
    """Let every stopper in `stopper` that has a clock go by `clock`: a replay has its own time."""
    if hasattr(stopper, "use_clock"):
        stopper.use_clock(clock)
    for member in getattr(stopper, "stoppers", ()):
        use_clock(member, clock)
