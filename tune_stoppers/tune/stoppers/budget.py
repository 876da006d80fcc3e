"""`BudgetStopper`: counts the time that Ray's results say was spent, and asks `rules.Budget`."""

import math
from collections.abc import Callable
from typing import Any

from ray.tune import Stopper

from tune_stoppers.core import Decision, Report, Rule
from tune_stoppers.journal.lines import OVER, event_line
from tune_stoppers.metrics import logger
from tune_stoppers.rules.trial.budget import Budget
from tune_stoppers.tune.spending import SpendingReader
from tune_stoppers.tune.stoppers.of_rule import StopperOfRule


class BudgetStopper(StopperOfRule):
    """Ends a trial, or the sweep, when what it was given is spent; needs no metric and no mode.

    ::

        BudgetStopper(trial_seconds=60)  # time_this_iter_s 25, 25, 25: stops at report 3
        BudgetStopper(gpu_hours=100, gpus_per_trial=2)  # of all trials together
        BudgetStopper(sweep_seconds=8 * 3600, on_end="drain")
        BudgetStopper(money=250, gpu_hour_price=2.5, currency="EUR")  # 100 GPU-hours
        BudgetStopper(kwh=20)  # of this machine, where its counters can be read

    Active time, of `trial_seconds`, `gpu_hours` and `money`, is the sum of `time_this_iter_s` over
    a trial's reports: work that a restart lost and did again counts twice, waiting in a queue,
    paused or between a crash and `Tuner.restore` not at all. `sweep_seconds` is by a clock that
    does not run between a crash and `Tuner.restore`, nor does the meter of `kwh`. All are kept with
    the experiment.

    At the end of a sweep's budget, "kill" ends every trial at once; `sweep_seconds` and `kwh` do so
    also while no trial reports. "drain" ends each trial at its next report. A stopper cannot keep
    Ray from starting trials: those that start after that end at their first report. `rules.Budget`
    has the formula.
    """

    rule_class = Budget
    positional = ("trial_seconds", "sweep_seconds", "gpu_hours", "gpus_per_trial", "on_end")

    def judge(self, trial_id: str, result: dict[str, Any]) -> Decision:
        assert isinstance(self._reader, SpendingReader)
        if self._reader.is_new(trial_id, result):
            self._sessions.drop(trial_id)  # totals only grow: a restart has nothing to put back
        return super().judge(trial_id, result)

    def stop_all(self) -> bool:
        """Whether the sweep is over; the clock alone can end it, between two reports."""
        assert isinstance(self._reader, SpendingReader)
        now = Report("", -math.inf, None, self._reader.spending.totals(""))  # starts the clock
        if self._ended or self.dry_run:
            return self._ended
        assert isinstance(self.rule, Rule)
        _, decision = self.rule.update(self.rule.init(), now)
        if decision.ends_sweep:
            self._ended = True
            why = self.describe(decision)
            self._log(lambda: event_line(self.name, "", OVER, why=why))
            logger.warning("%s: every trial ends.", why)
        return self._ended


def use_clock(stopper: Stopper, clock: Callable[[], float]) -> None:
    """Let every stopper in `stopper` that has a clock go by `clock`: a replay has its own time."""
    if hasattr(stopper, "use_clock"):
        stopper.use_clock(clock)
    for member in getattr(stopper, "stoppers", ()):
        use_clock(member, clock)
