"""Rules written as text: `Patience(3) | On("kl", ThresholdStopper(threshold=0.5), "max")`.

A rule's name makes the rule, as in Python: its thresholds are in loss units, negated where the
metric is maximised. A stopper's name makes the rule in that stopper, and takes them as the metric
is. A text under "max" that gives a threshold to a rule's name is refused, as it could mean either.
"""

import functools
from collections.abc import Callable
from typing import Any

from tune_stoppers import rules
from tune_stoppers.core import BaseRule, Mode, On, require_choice, require_number
from tune_stoppers.expressions import ExpressionError, Known, Maker, parse

# what of a rule is in loss units, and its stopper takes in the metric's own
LOSS_UNITS: dict[str, tuple[str, ...]] = {
    "Patience": ("baseline",),
    "Threshold": ("threshold",),
    "Divergence": ("limit",),
    "Forecast": ("target",),
}
# whose parameters their stoppers share
_STOPPERS = (
    "Patience",
    "Threshold",
    "Divergence",
    "AdaptivePatience",
    "Recovery",
    "MultiMetric",
    "Budget",
)


def rule_of(text: str, mode: Mode | None = None) -> BaseRule:
    """The rule that `text` describes.

    Args:
        mode: of the objective: "min", "max", or None where no rule reads it.

    Raises `ExpressionError` for what is not understood, with the known names; errors of the
    rules' constructors come through as they are.
    """
    if mode is not None:
        require_choice("mode", mode, ("min", "max"))
    made = parse(text, rule_names(), mode=mode)
    assert isinstance(made, BaseRule)
    return made


def rule_names() -> Known:
    """What a text may call to make a rule, to be given `mode`."""
    kinds = {
        name: kind
        for name, kind in vars(rules).items()
        if isinstance(kind, type) and issubclass(kind, BaseRule) and kind is not On
    }
    known = {name: Maker(_strict(kind), ("mode",)) for name, kind in kinds.items()}
    known |= {f"{name}Stopper": Maker(_in_units(kinds[name]), ("mode",)) for name in _STOPPERS}
    return known | {"On": Maker(On)}


def _strict(kind: type[BaseRule]) -> Callable[..., BaseRule]:
    """The rule as in Python, unless a number in it could be taken for one in the metric's units."""

    @functools.wraps(kind, updated=())
    def make(*args: Any, mode: Mode | None, **named: Any) -> BaseRule:
        rule = kind(*args, **named)
        for key in LOSS_UNITS.get(kind.__name__, ()):
            value = getattr(rule, key)
            if mode == "max" and value:
                raise ExpressionError(
                    f'{kind.__name__} takes {key} in loss units, which under mode "max" are '
                    f"negated; write {kind.__name__}Stopper({key}=…) and the number as the metric "
                    f"is, got {value!r}."
                )
        return rule

    return make


def _in_units(kind: type[BaseRule]) -> Callable[..., BaseRule]:
    """The rule with its numbers as the metric is."""

    @functools.wraps(kind, updated=())
    def make(*args: Any, mode: Mode | None, **named: Any) -> BaseRule:
        if args:
            raise ExpressionError(
                f"{kind.__name__}Stopper takes its parameters by name here, got {args[0]!r}."
            )
        for key in LOSS_UNITS.get(kind.__name__, ()):
            if named.get(key) is not None:
                require_number(key, named[key])
                named[key] *= -1 if mode == "max" else 1
        return kind(**named)

    return make
