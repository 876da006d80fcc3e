"""Rules as `ray.tune.Stopper`: each class names its rule, and takes that rule's parameters.

Type checkers and editors read `named.pyi`; after a change here, or of a rule's parameters, run
`python -m tune_stoppers.tune.stoppers.signatures`.
"""

from tune_stoppers.rules import (
    AdaptivePatience,
    DiminishingReturns,
    Divergence,
    MultiMetric,
    Patience,
    Recovery,
    Threshold,
)
from tune_stoppers.tune.stoppers.base import RuleStopper as RuleStopper
from tune_stoppers.tune.stoppers.budget import BudgetStopper as BudgetStopper
from tune_stoppers.tune.stoppers.combinators import AllOf as AllOf
from tune_stoppers.tune.stoppers.combinators import AnyOf as AnyOf
from tune_stoppers.tune.stoppers.forecast import ForecastStopper as ForecastStopper
from tune_stoppers.tune.stoppers.gradient import GradientStopper as GradientStopper
from tune_stoppers.tune.stoppers.of_rule import StopperOfRule
from tune_stoppers.tune.stoppers.overfit import OverfitStopper as OverfitStopper


class PatienceStopper(StopperOfRule):
    """Stops a trial at the `patience`-th evaluation in a row without improvement.

    ::

        PatienceStopper("loss", "min", patience=2)  # loss 3, 2, 2.5, 2: stops at report 4
        PatienceStopper("acc", "max", patience=2, baseline=0.5)  # acc 0.3, 0.4: report 2

    `rules.Patience` says what an improvement is. With `lr_metric` and `schedule_end`, plateaus that
    the learning rate explains do not count (`rules.schedule.LrAware`).
    """

    rule_class = Patience
    in_metric_units = ("baseline",)


class ThresholdStopper(StopperOfRule):
    """Stops a trial, or the sweep, once the metric is past its target `patience` times in a row.

    ::

        ThresholdStopper("loss", "min", threshold=0.1)  # loss 0.2, 0.1, 0.09: stops at report 3
        ThresholdStopper("acc", "max", threshold=0.9, scope="sweep")  # acc 0.8, 0.95: report 2

    Past means strictly better: below the threshold for "min", above it for "max".
    `rules.Threshold` has the details.
    """

    rule_class = Threshold
    in_metric_units = ("threshold",)


class DivergenceStopper(StopperOfRule):
    """Stops a trial that has blown up: NaN, infinity, a value beyond `limit` or far off its best.

    ::

        DivergenceStopper("loss", "min")  # loss 4, 2, 9, 9: stops at report 4
        DivergenceStopper("loss", "min")  # loss 4, nan: stops at report 2
        DivergenceStopper("reward", "max", limit=-50)  # reward 1, -60: stops at report 2

    `rules.Divergence` has the formula.
    """

    rule_class = Divergence
    in_metric_units = ("limit",)


class MultiMetricStopper(StopperOfRule):
    """Stops a trial whose composite of several metrics has not risen for `patience` evaluations.

    ::

        both = {"loss": {"mode": "min"}, "acc": {"mode": "max", "weight": 2}}
        MultiMetricStopper(both, patience=1)  # loss 1, 0.5, 0.6; acc 0.1, 0.2, 0.2: report 3

    `combine="vote"` asks each metric apart: a weighted majority must have stalled.
    `rules.MultiMetric` has the formulas.
    """

    rule_class = MultiMetric
    positional = ("metrics",)


class AdaptivePatienceStopper(StopperOfRule):
    """Patience that grows while a trial improves quickly and shrinks while it hardly does.

    ::

        AdaptivePatienceStopper("loss", "min", initial_patience=2)  # loss 1, 1, 1: report 3

    With `scale="noise"`, one setting serves a loss near 0.01 and one near 10.
    `rules.AdaptivePatience` has the formulas.
    """

    rule_class = AdaptivePatience


class RecoveryStopper(StopperOfRule):
    """Gives a trial that stopped improving `recovery_patience` more evaluations to come back.

    ::

        RecoveryStopper("loss", "min", patience=1, recovery_patience=1)  # loss 1, 1, 1: report 3

    It only decides: nothing is rolled back. `rules.Recovery` has the formula.
    """

    rule_class = Recovery


class DiminishingReturnsStopper(StopperOfRule):
    """Ends the whole sweep once continuing it is expected to gain too little.

    ::

        DiminishingReturnsStopper("eval_loss", "min")  # no more than the noise of an evaluation
        DiminishingReturnsStopper("accuracy", "max", worth=0.002)  # or under 0.002 an hour
        DiminishingReturnsStopper(
            "accuracy", "max", worth=0.0005, gpu_hour_price=2.5, currency="EUR"
        )  # or under 0.0005 a euro

    Never before `min_trials` have reported and one has come to its end: by itself, or at `max_t`,
    to be given where a scheduler ends trials there. The reason says what is expected to be left on
    the table. `rules.DiminishingReturns` has the formula. `worth` is per hour of the sweep, by a
    clock that does not run between a crash and `Tuner.restore`, or, with `gpu_hour_price`, per unit
    of money. With a searcher that improves
    over the sweep, more may be left than is said.
    """

    rule_class = DiminishingReturns
