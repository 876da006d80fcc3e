"""`RuleScheduler`: any rule as a scheduler, which can pause as well as stop."""

from typing import Any, Unpack

from tune_stoppers.core import BaseRule, Decision, OnNonfinite, Rule, SweepRule
from tune_stoppers.core.per_trial import PerTrial
from tune_stoppers.rules.trial.budget import (
    SWEEP_KWH,
    SWEEP_SECONDS,
    TRIAL_ACTIVE_SECONDS,
    sweep_is_spent,
)
from tune_stoppers.training.energy import EnergyMeter
from tune_stoppers.training.spending import Spending, reads_energy
from tune_stoppers.tune.reader import ResultReader
from tune_stoppers.tune.schedulers.base import CommonButNonfinite, SweepScheduler
from tune_stoppers.tune.spending import SpendingReader, reads_spending


class RuleScheduler(SweepScheduler[Any]):
    """Applies a rule to the trials of a sweep: STOP ends one, PAUSE lets others go first.

    ::

        RuleScheduler(Patience(2) | Budget(gpu_hours=100))  # stop_reason of a trial:
        # "2 of 2 evaluations without improvement, value 2.31599, best 2.31234 at step 17"

    A paused trial resumes from its newest checkpoint when there is room; Ray would restart one
    whose report came without a checkpoint from an older one, or from zero, so it continues (a class
    trainable with `save_checkpoint` is saved as it is paused). A decision that ends the sweep
    (`Threshold(scope="sweep")`, a spent `Budget` of the sweep, also one that drains) ends the
    search: nothing more is started, and what runs is stopped at its next report.

    Args:
        rule: for each trial by itself, or over all of them. Thresholds and limits in it are in
            loss units: negated where `mode` is "max". A rule that resumes trials or rolls them
            back needs the scheduler made for it.
        on_nonfinite: "worst", "stop" or "ignore", for that of the rule; None: as the rule says.
        common: those of `SweepScheduler`.
    """

    def __init__(
        self,
        rule: BaseRule,
        *,
        on_nonfinite: OnNonfinite | None = None,
        **common: Unpack[CommonButNonfinite],
    ) -> None:
        if not isinstance(rule, Rule | SweepRule):
            raise TypeError(f"RuleScheduler needs a rule of tune_stoppers.rules, got {rule!r}.")
        if rule.scheduler:
            raise TypeError(
                f"RuleScheduler cannot carry out what {rule.name} asks for: use {rule.scheduler}."
            )
        if on_nonfinite is not None:
            rule = rule.with_policy(on_nonfinite)
        if reads_energy(rule):
            EnergyMeter()  # an error now, not at the first report
        super().__init__(rule if isinstance(rule, SweepRule) else PerTrial(rule), **common)

    def reader(self) -> ResultReader:
        """One that counts what is spent, where the rule has a budget."""
        if not reads_spending(self.rule):
            return super().reader()
        reader = SpendingReader(self.name, self.rule, **self._reading())
        known = self._memory.trials
        if reads_energy(self.rule) and not self._memory.keeps:
            raise ValueError("A replay knows no energy: leave the budget of kwh out.")

        def before(name: str) -> float:
            return max((trial.metrics.get(name, 0.0) for trial in known.values()), default=0.0)

        reader.spending = Spending(
            elapsed=before(SWEEP_SECONDS), metered=reads_energy(self.rule), kwh=before(SWEEP_KWH)
        )
        for trial_id, trial in known.items():
            reader.spending.add(trial_id, trial.metrics.get(TRIAL_ACTIVE_SECONDS, 0.0))
        reader.spending.totals("")  # the clock runs from here
        return reader

    def ends_sweep(self, decision: Decision) -> bool:
        """Also where the budget of the sweep is spent and drains."""
        return super().ends_sweep(decision) or sweep_is_spent(decision)
