"""The rule that a user gave, for a run of its own: a rule, or a patience."""

from typing import Any

from tune_stoppers.core import BaseRule, Rule, SweepRule
from tune_stoppers.rules import Patience
from tune_stoppers.training.going_back import rolls_back


def as_rule(rule_or_patience: BaseRule | int, min_delta: float = 0.0) -> BaseRule:
    """The rule itself, or `Patience` of so many evaluations."""
    _refuse_stopper(rule_or_patience)
    if isinstance(rule_or_patience, SweepRule) and not rolls_back(rule_or_patience):
        raise TypeError(
            f"{rule_or_patience.name} compares the trials of a sweep, and here is one run: give "
            "it to RuleStopper or RuleScheduler, or take a rule of tune_stoppers.rules.trial."
        )
    if not isinstance(rule_or_patience, BaseRule):
        return Patience(rule_or_patience, min_delta)
    if min_delta:
        raise ValueError(
            f"min_delta belongs to a patience; give it to the rule, got {min_delta} "
            f"beside {rule_or_patience!r}."
        )
    return rule_or_patience


def _refuse_stopper(given: Any) -> None:
    """A stopper is no rule: `TypeError` with what to write instead."""
    kind = type(given).__name__
    if isinstance(getattr(given, "rule", None), Rule):
        metric, mode = getattr(given, "metric", None), getattr(given, "mode", None)
        own = f", with metric {metric!r} and mode {mode!r}" if metric else ""
        raise TypeError(
            f"{kind} is for Ray Tune; here goes the rule in it. Write {kind}(…).rule instead of "
            f"{kind}(…){own}: its rule is {given.rule!r}."
        )
    if hasattr(given, "stoppers"):
        raise TypeError(
            f"{kind} combines stoppers of Ray Tune; here go rules. Write a.rule | b.rule (or &) "
            f"of the stoppers in it."
        )
