"""Time spent, as Ray's results tell it, for the rules that have a budget."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray

from tune_stoppers.core import Mode, OnMissing
from tune_stoppers.metrics import Reads, number
from tune_stoppers.result_keys import (
    PID,
    SINCE_RESTORE,
    TIME_THIS_ITER_S,
    TIME_TOTAL_S,
    TIMESTAMP,
    TRAINING_ITERATION,
)
from tune_stoppers.rules.trial.budget import SWEEP_ACTIVE_SECONDS, TRIAL_ACTIVE_SECONDS
from tune_stoppers.training.spending import TOTALS, Spending, reads_energy
from tune_stoppers.tune.reader import Reading, ResultReader

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

    @property
    def optional_metrics(self) -> tuple[str, ...]:
        return self.rule.optional_metrics


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
        self.spending = Spending(metered=reads_energy(rule))
        self._one_machine = not reads_energy(rule)  # known to be
        self._newest: dict[str, tuple[float | None, ...]] = {}  # identity of each trial's result

    def is_new(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Whether `result` is not the trial's newest once more."""
        return self._newest.get(trial_id) != self._identity(result)

    def read(self, trial_id: str, result: Mapping[str, Any]) -> Reading | None:
        self._check_machines()
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

    def _check_machines(self) -> None:
        """`ValueError` if energy is counted here and trials run elsewhere, too."""
        if self._one_machine:
            return
        self._one_machine = True
        nodes = sum(node["Alive"] for node in ray.nodes()) if ray.is_initialized() else 1
        if nodes > 1:
            raise ValueError(
                f"A budget of kwh counts the energy of the driver's machine alone, and this "
                f"cluster has {nodes}: give gpu_hours or money instead."
            )

    def _identity(self, result: Mapping[str, Any]) -> tuple[float | None, ...]:
        return tuple(number(result.get(key)) for key in (self.time_attr, *IDENTITY))


def reads_spending(rule: Reads) -> bool:
    """Whether the rule reads any of the totals that a `SpendingReader` counts."""
    return not TOTALS.isdisjoint(rule.reads)
