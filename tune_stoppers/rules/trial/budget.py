"""Budget: stop a trial, or the sweep, when the time it was given is spent."""

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from tune_stoppers.core import (
    Action,
    Decision,
    Report,
    Rule,
    require,
    require_choice,
    require_number,
)

# what adapters add to reports for this rule, in seconds
TRIAL_ACTIVE_SECONDS = "trial_active_seconds"  # work of this trial, also what a restart lost
SWEEP_ACTIVE_SECONDS = "sweep_active_seconds"  # the same, of all trials together
SWEEP_SECONDS = "sweep_seconds"  # since the sweep began, without the time it was down


class BudgetState(NamedTuple):
    """What `Budget` remembers: what was spent by the newest report."""

    trial_seconds: float  # active seconds of this trial
    sweep_seconds: float  # by the clock
    gpu_hours: float  # of all trials


@dataclass(frozen=True)
class Budget(Rule):
    """Stop when a budget of time is spent, of the trial or of the whole sweep.

    Formula: stop iff spent >= budget, for any budget that is set. The rule has no clock: it
    compares running totals that its adapter adds to each report, in seconds:
    `trial_active_seconds`, `sweep_active_seconds` (of all trials together) and `sweep_seconds`
    (by the clock). Active time is work done, lost and repeated work included. GPU-hours =
    `sweep_active_seconds`·`gpus_per_trial`/3600.

    Args:
        trial_seconds: active seconds of one trial, above 0; None: no such budget. Ends that trial.
        sweep_seconds: seconds since the sweep began, above 0; None: no such budget.
        gpu_hours: of all trials together, above 0; None: no such budget.
        gpus_per_trial: GPUs that one trial holds, above 0; a share of one is fine.
        on_end: when `sweep_seconds` or `gpu_hours` is spent, "kill" ends the sweep, "drain" each
            trial at its next report.

    The objective is not read. Totals only grow: no restart gives time back. A total that is not
    finite ("worst") ends nothing by being NaN; an infinite one is past any budget. A report without
    the totals, or at a step already seen, changes nothing.

    Example: trial_seconds 60, reports after 25, 50 and 75 s: stops at the third.
    """

    trial_seconds: float | None = None
    sweep_seconds: float | None = None
    gpu_hours: float | None = None
    gpus_per_trial: float = 1
    on_end: Literal["kill", "drain"] = "kill"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in BudgetState._fields:
            if getattr(self, name) is not None:
                require_number(name, getattr(self, name), above=0)
        require_number("gpus_per_trial", self.gpus_per_trial, above=0)
        require_choice("on_end", self.on_end, ("kill", "drain"))
        of_sweep = self.sweep_seconds is not None or self.gpu_hours is not None
        require(
            of_sweep or self.trial_seconds is not None,
            "A budget needs trial_seconds, sweep_seconds or gpu_hours, got none of them.",
        )
        require(
            of_sweep or self.on_end == "kill",
            'on_end="drain" is about the end of the sweep: give sweep_seconds or gpu_hours.',
        )
        require(
            self.gpu_hours is not None or self.gpus_per_trial == 1,
            f"gpus_per_trial = {self.gpus_per_trial!r} is of use to gpu_hours alone: give that.",
        )

    @property
    def reads(self) -> tuple[str, ...]:
        read = {
            TRIAL_ACTIVE_SECONDS: self.trial_seconds,
            SWEEP_SECONDS: self.sweep_seconds,
            SWEEP_ACTIVE_SECONDS: self.gpu_hours,
        }
        return tuple(name for name, budget in read.items() if budget is not None)

    @property
    def needs_objective(self) -> bool:
        return False

    def start(self) -> BudgetState:
        return BudgetState(0.0, 0.0, 0.0)

    def observe(self, own: BudgetState, report: Report) -> BudgetState:
        return BudgetState(
            report.metrics.get(TRIAL_ACTIVE_SECONDS, 0.0),
            report.metrics.get(SWEEP_SECONDS, 0.0),
            report.metrics.get(SWEEP_ACTIVE_SECONDS, 0.0) * self.gpus_per_trial / 3600,
        )

    def decide(self, own: BudgetState) -> Decision:
        numbers: dict[str, Any] = {}
        for name, text in _WORDS.items():
            spent, budget = getattr(own, name), getattr(self, name)
            if budget is None:
                continue
            compared = {name: spent, f"{name}_budget": budget}
            if spent >= budget:
                ends_sweep = self.on_end == "kill" and name != "trial_seconds"
                return replace(self.stop(text, **compared), ends_sweep=ends_sweep)
            numbers |= compared
        return self.keep(", ".join(t for n, t in _WORDS.items() if n in numbers), **numbers)


_WORDS = {  # the sweep's budgets come first: theirs is the wider end
    "gpu_hours": "the sweep has used {gpu_hours:.6g} of {gpu_hours_budget:.6g} GPU-hours",
    "sweep_seconds": "the sweep has run {sweep_seconds:.6g} of {sweep_seconds_budget:.6g} s",
    "trial_seconds": "the trial has used {trial_seconds:.6g} of {trial_seconds_budget:.6g} s",
}


def sweep_is_spent(decision: Decision) -> bool:
    """Whether a decision to stop says that a budget of the whole sweep is spent, drained or not."""
    mine = decision.rule == Budget.__name__ and decision.action is Action.STOP
    if mine and not {"gpu_hours", "sweep_seconds"}.isdisjoint(decision.numbers):
        return True
    return any(sweep_is_spent(part) for part in decision.parts)
