"""`OverfitStopper`: one mode for the metric of validation and for that of training."""

from typing import Any

from tune_stoppers.core import BaseRule, Mode
from tune_stoppers.metrics import sign_of
from tune_stoppers.rules.trial.overfit import Overfit
from tune_stoppers.tune.stoppers.of_rule import StopperOfRule


class OverfitStopper(StopperOfRule):
    """Stops a trial that overfits, by Prechelt's (1998) criteria GL, PQ or UP.

    ::

        OverfitStopper("loss", "min", alpha=5)  # loss 1, 1.04, 1.06: stops at report 3
        OverfitStopper("acc", "max", alpha=5)  # acc 1, 0.96, 0.94: stops at report 3

    `mode` holds for `metric` and `train_metric`. `rules.Overfit` has the formulas.
    """

    rule_class = Overfit
    worked_out = ("train_sign",)

    @classmethod
    def make_rule(cls, mode: Mode, **parameters: Any) -> BaseRule:
        return Overfit(train_sign=sign_of(mode), **parameters)
