"""Rules by name: those that a text may call, and a first choice to compare."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
)
from ray.tune.stopper import MaximumIterationStopper, TrialPlateauStopper

import tune_stoppers
from tune_stoppers import (
    AllOf,
    AnyOf,
    AutoScheduler,
    BoundASHAScheduler,
    PatienceStopper,
    RuleStopper,
    rules,
)
from tune_stoppers.backtest.histories import take
from tune_stoppers.core import BaseRule, Mode
from tune_stoppers.expressions import DICT, ExpressionError, Maker, parse
from tune_stoppers.history import History
from tune_stoppers.metrics import number
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.recorded.table import Rows
from tune_stoppers.rule_texts import rule_names
from tune_stoppers.tune.stoppers.combinators import LimitStopper

Kind = Literal["stopper", "scheduler"]
WITH_HISTORY = " + history"  # behind the name of a rule that has been given one
RAYS: dict[str, Callable[..., Any]] = {
    "ASHAScheduler": ASHAScheduler,
    "FIFOScheduler": FIFOScheduler,
    "HyperBandScheduler": HyperBandScheduler,
    "MedianStoppingRule": MedianStoppingRule,
}


def known(kind: Kind) -> dict[str, Callable[..., Any]]:
    """Every stopper or scheduler that a text may name: ours, and Ray's that a replay can run."""
    ending = "Stopper" if kind == "stopper" else "Scheduler"
    ours = {n: getattr(tune_stoppers, n) for n in tune_stoppers.__all__ if n.endswith(ending)}
    ours.pop("RuleStopper", None)  # takes a rule, and a rule is no literal
    if kind == "scheduler":
        return ours | RAYS
    stoppers = (MaximumIterationStopper, TrialPlateauStopper)
    return ours | {each.__name__: _joinable(each) for each in stoppers} | {"TimeoutStopper": _clock}


def build(text: str, sweep: Sweep, kind: Kind) -> Any:
    """The stopper or scheduler that `text` describes; what it leaves out is the sweep's.

    A rule's name, `Patience(3)` or `On("kl", Patience(3), "min")`, makes a stopper of it.
    Metric and mode are filled in, and `max_t` of a scheduler, in units of its `time_attr`. Raises
    `ExpressionError` where the text is not understood, and whatever a constructor raises;
    ValueError for Ray's assertions, and where Ray computes with what it has not checked.
    """
    metric, mode = sweep.objective()
    if kind == "stopper":
        ruled = {name: _stopping(maker, metric, mode) for name, maker in rule_names().items()}
        return parse(text, ruled | known(kind) | {DICT: LimitStopper}, metric=metric, mode=mode)
    defaults = {"metric": metric, "mode": mode, "max_t": functools.partial(_horizon, sweep)}
    try:
        made = parse(text, {**rule_names(), **known(kind)}, **defaults)
        if isinstance(made, BaseRule):
            raise ExpressionError(f"{text} is a rule: write RuleScheduler({text}).")
        return made
    except (AssertionError, ArithmeticError) as error:  # how Ray's schedulers refuse arguments
        raise ValueError(f"{text}: {error}") from error


def _horizon(sweep: Sweep, given: Mapping[str, Any]) -> float:
    """The longest trial's last time, by the `time_attr` that is given."""
    name = given.get("time_attr", "training_iteration")
    lasts = (number(Rows(curve)[len(curve) - 1].get(name)) for curve in sweep)
    return max((last for last in lasts if last is not None), default=sweep.max_t)


def kind_of(text: str) -> Kind:
    """Whether the first name in a text is a scheduler's; else it is taken for a stopper."""
    first = re.match(r"[\s(]*(\w+)", text)
    return "scheduler" if first and first[1] in known("scheduler") else "stopper"


def default_rules() -> dict[str, Callable[[Sweep], Any]]:
    """A first choice for `compare`, beside no stopping; each is built for the sweep it meets."""

    def asha(sweep: Sweep, share: float) -> Any:
        grace = max(1, round(share * sweep.max_t))
        return ASHAScheduler(max_t=sweep.max_t, grace_period=grace, reduction_factor=3)

    def median(sweep: Sweep) -> Any:
        return MedianStoppingRule(time_attr="training_iteration", grace_period=1)

    def patience(sweep: Sweep) -> Any:
        metric, mode = sweep.objective()
        return PatienceStopper(metric, mode, patience=3)

    return {
        "ASHA, eta 3, grace 1": lambda sweep: asha(sweep, 0.0),
        "ASHA, eta 3, grace 5 %": lambda sweep: asha(sweep, 0.05),
        "median, grace 1": median,
        "PatienceStopper(patience=3)": patience,
        "BoundASHAScheduler": lambda sweep: BoundASHAScheduler(sweep.max_t),
        "AutoScheduler": lambda sweep: AutoScheduler(sweep.max_t),
    }


def with_history(
    rules: Mapping[str, Callable[[Sweep], Any]], sweep: Sweep, history: History
) -> dict[str, Callable[[Sweep], Any]]:
    """`rules`, and behind each that can make use of a history the same one with it."""
    both: dict[str, Callable[[Sweep], Any]] = {}
    for name, make in rules.items():
        both[name] = make
        made = functools.partial(_taking, make, history)
        if made(sweep) is not None:
            both[f"{name}{WITH_HISTORY}"] = made
    return both


def _taking(make: Callable[[Sweep], Any], history: History, sweep: Sweep) -> Any:
    """The rule with this history; None if it takes none."""
    made = make(sweep)
    scheduler = made[0] if isinstance(made, tuple) else made
    return made if take(scheduler, history) else None


def _joinable(made: Callable[..., Any]) -> Callable[..., Any]:
    """Ray's stoppers do not know `|` and `&`; in an `AnyOf` of one they do."""

    @functools.wraps(made)
    def build(*args: Any, **kwargs: Any) -> AnyOf:
        return AnyOf(made(*args, **kwargs))

    return build


def _stopping(maker: Any, metric: str, mode: Mode) -> Maker:
    """The stopper of the rule that `maker` makes; its arguments may be such stoppers."""

    @functools.wraps(maker.make, updated=())
    def build(*args: Any, **named: Any) -> RuleStopper:
        args = tuple(map(_rule_in, args))
        rule = maker.make(*args, **{key: _rule_in(value) for key, value in named.items()})
        return RuleStopper(rule, metric, mode)

    return Maker(build, maker.given)


def _rule_in(given: Any) -> Any:
    """The rule of a stopper, or of stoppers combined; anything else as it is."""
    if isinstance(given, (AnyOf, AllOf)):
        combine = rules.AnyOf if isinstance(given, AnyOf) else rules.AllOf
        return combine(*map(_rule_in, given.stoppers))
    return given.rule if isinstance(given, RuleStopper) else given


def _clock(*args: Any, **kwargs: Any) -> Any:
    raise ValueError("TimeoutStopper reads the wall clock, which says nothing of virtual time.")
