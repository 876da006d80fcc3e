"""What a recipe is."""

from collections.abc import Mapping
from typing import NamedTuple, Self, TypedDict

from tune_stoppers.core import Mode, Rule
from tune_stoppers.rules import AnyOf, Divergence

NOISY = {"ema": 0.9}  # smooths over some ten logs of single batches
NOT_FINITE = Divergence(factor=None)  # NaN and infinity alone: no bound that noise might cross


class Objective(TypedDict):
    """The keywords `metric` and `mode`."""

    metric: str
    mode: Mode


class Recipe(NamedTuple):
    """A rule, the metric to judge by with its mode, and why these."""

    rule: Rule  # thresholds in loss units
    metric: str
    mode: Mode
    why: str
    parts: Mapping[str, Rule] = {}  # where the rule is any of several: these, by what they watch

    @property
    def objective(self) -> Objective:
        """`metric` and `mode` as keywords, of a stopper, a callback, a loop or `TuneConfig`."""
        return {"metric": self.metric, "mode": self.mode}

    @classmethod
    def any_of(cls, parts: Mapping[str, Rule], metric: str, mode: Mode, why: str) -> Self:
        """The recipe that ends a run as soon as one of `parts` does."""
        return cls(AnyOf(*parts.values()), metric, mode, why, parts)
