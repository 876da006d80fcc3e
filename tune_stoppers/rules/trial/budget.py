"""Budget: stop a trial, or the sweep, when the time, money or energy it was given is spent."""

from collections.abc import Mapping
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
SWEEP_KWH = "sweep_kwh"  # energy that the machine has used since then; in kWh, unlike the others


class BudgetState(NamedTuple):
    """What `Budget` remembers: what was spent by the newest report."""

    trial_seconds: float  # active seconds of this trial
    sweep_seconds: float  # by the clock
    gpu_hours: float  # of all trials


class MeteredBudgetState(NamedTuple):
    """The same where energy has a budget: a state of version 0.2 has no energy in it."""

    trial_seconds: float
    sweep_seconds: float
    gpu_hours: float
    kwh: float  # of the machine


Spent = BudgetState | MeteredBudgetState


@dataclass(frozen=True)
class Budget(Rule):
    """Stop when a budget is spent: time of the trial, or time, money or energy of the whole sweep.

    Formula: stop iff spent >= budget, for any budget that is set. The rule has no clock: it
    compares running totals that its adapter adds to each report, in seconds:
    `trial_active_seconds`, `sweep_active_seconds` (of all trials together) and `sweep_seconds`
    (by the clock); and `sweep_kwh`. Active time is work done, lost and repeated work included.
    GPU-hours = `sweep_active_seconds`·`gpus_per_trial`/3600; money = GPU-hours·`gpu_hour_price`.

    Args:
        trial_seconds: active seconds of one trial, above 0; None: no such budget. Ends that trial.
        sweep_seconds: seconds since the sweep began, above 0; None: no such budget.
        gpu_hours: of all trials together, above 0; None: no such budget.
        gpus_per_trial: GPUs that one trial holds, above 0; a share of one is fine.
        on_end: when a budget of the sweep is spent, "kill" ends the sweep, "drain" each trial at
            its next report.
        money: that all trials together may cost, in any currency, above 0; None: no such budget.
        gpu_hour_price: of a GPU for an hour, in that currency, above 0; money needs it.
        currency: what the reasons call it, "EUR" for instance.
        kwh: energy that the machine may use in the sweep, above 0; None: no such budget. Of all of
            its GPUs and CPUs that have a counter (NVML, RAPL), whoever uses them. For one machine;
            without a counter that can be read, making a stopper or scheduler of it is an error.

    The objective is not read. Totals only grow: no restart gives time back. A total that is not
    finite ("worst") ends nothing by being NaN; an infinite one is past any budget. A report without
    the totals, or at a step already seen, changes nothing.

    Example: trial_seconds 60, reports after 25, 50 and 75 s: stops at the third. money 10,
    gpu_hour_price 2.5: stops when all trials together have used 4 GPU-hours.
    """

    trial_seconds: float | None = None
    sweep_seconds: float | None = None
    gpu_hours: float | None = None
    gpus_per_trial: float = 1
    on_end: Literal["kill", "drain"] = "kill"
    money: float | None = None
    gpu_hour_price: float | None = None
    currency: str = ""
    kwh: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (*_WORDS, "gpu_hour_price"):
            if getattr(self, name) is not None:
                require_number(name, getattr(self, name), above=0)
        require_number("gpus_per_trial", self.gpus_per_trial, above=0)
        require_choice("on_end", self.on_end, ("kill", "drain"))
        of_sweep = any(getattr(self, name) is not None for name in OF_SWEEP)
        require(
            of_sweep or self.trial_seconds is not None,
            "A budget needs trial_seconds, sweep_seconds, gpu_hours, money or kwh, got none of "
            "them.",
        )
        require(
            of_sweep or self.on_end == "kill",
            'on_end="drain" is about the end of the sweep: give sweep_seconds, gpu_hours, money or '
            "kwh.",
        )
        require(
            self.gpu_hours is not None or self.money is not None or self.gpus_per_trial == 1,
            f"gpus_per_trial = {self.gpus_per_trial!r} is of use to gpu_hours and money alone: "
            "give one of them.",
        )
        require(
            self.money is None or self.gpu_hour_price is not None,
            f"money = {self.money!r} needs gpu_hour_price, what a GPU costs for an hour.",
        )
        require(
            self.money is not None or self.gpu_hour_price is None,
            f"gpu_hour_price = {self.gpu_hour_price!r} is of use to money alone: give that.",
        )
        require(isinstance(self.currency, str), f"currency is a word, got {self.currency!r}.")

    @property
    def reads(self) -> tuple[str, ...]:
        read = {
            TRIAL_ACTIVE_SECONDS: self.trial_seconds,
            SWEEP_SECONDS: self.sweep_seconds,
            SWEEP_ACTIVE_SECONDS: self.money if self.gpu_hours is None else self.gpu_hours,
            SWEEP_KWH: self.kwh,
        }
        return tuple(name for name, budget in read.items() if budget is not None)

    @property
    def needs_objective(self) -> bool:
        return False

    def start(self) -> Spent:
        return self._spent({})

    def observe(self, own: Spent, report: Report) -> Spent:
        return self._spent(report.metrics)

    def _spent(self, totals: Mapping[str, float]) -> Spent:
        time = (
            totals.get(TRIAL_ACTIVE_SECONDS, 0.0),
            totals.get(SWEEP_SECONDS, 0.0),
            totals.get(SWEEP_ACTIVE_SECONDS, 0.0) * self.gpus_per_trial / 3600,
        )
        if self.kwh is None:
            return BudgetState(*time)
        return MeteredBudgetState(*time, totals.get(SWEEP_KWH, 0.0))

    def decide(self, own: Spent) -> Decision:
        spent = own._asdict() | {"money": own.gpu_hours * (self.gpu_hour_price or 0.0)}
        unit = {"money": in_currency(self.currency)}
        numbers: dict[str, Any] = {}
        texts = []
        for name, text in _WORDS.items():
            budget = getattr(self, name)
            if budget is None:
                continue
            compared = {name: spent[name], f"{name}_budget": budget}
            text += unit.get(name, "")
            if spent[name] >= budget:
                return replace(
                    self.stop(text, **compared),
                    ends_sweep=self.on_end == "kill" and name in OF_SWEEP,
                )
            numbers |= compared
            texts.append(text)
        return self.keep(", ".join(texts), **numbers)


OF_SWEEP = ("money", "kwh", "gpu_hours", "sweep_seconds")
_WORDS = {  # the sweep's budgets come first: theirs is the wider end
    "money": "the sweep has cost {money:.6g} of {money_budget:.6g}",
    "kwh": "the machine has used {kwh:.6g} of {kwh_budget:.6g} kWh",
    "gpu_hours": "the sweep has used {gpu_hours:.6g} of {gpu_hours_budget:.6g} GPU-hours",
    "sweep_seconds": "the sweep has run {sweep_seconds:.6g} of {sweep_seconds_budget:.6g} s",
    "trial_seconds": "the trial has used {trial_seconds:.6g} of {trial_seconds_budget:.6g} s",
}


def in_currency(currency: str) -> str:
    """What follows an amount in the text of a decision, where braces have a meaning."""
    return f" {currency}".replace("{", "{{").replace("}", "}}") if currency else ""


def sweep_is_spent(decision: Decision) -> bool:
    """Whether a decision to stop says that a budget of the whole sweep is spent, drained or not."""
    mine = decision.rule == Budget.__name__ and decision.action is Action.STOP
    if mine and not set(OF_SWEEP).isdisjoint(decision.numbers):
        return True
    return any(sweep_is_spent(part) for part in decision.parts)
