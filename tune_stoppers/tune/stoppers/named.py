"""Rules as `ray.tune.Stopper`, a few lines each."""

from collections.abc import Mapping
from typing import Any, Literal, Unpack, cast

from tune_stoppers.core import Mode, Rule, require_choice
from tune_stoppers.metrics import check_metric, sign_of
from tune_stoppers.rules import (
    AdaptivePatience,
    Divergence,
    GradientNorm,
    MultiMetric,
    Overfit,
    Patience,
    Recovery,
    Slope,
    Threshold,
)
from tune_stoppers.rules.smoothing import Smoothing
from tune_stoppers.tune.stoppers.base import Common, as_loss, needs_objective
from tune_stoppers.tune.stoppers.base import RuleStopper as RuleStopper
from tune_stoppers.tune.stoppers.budget import BudgetStopper as BudgetStopper
from tune_stoppers.tune.stoppers.combinators import AllOf as AllOf
from tune_stoppers.tune.stoppers.combinators import AnyOf as AnyOf


class PatienceStopper(RuleStopper):
    """Stops a trial at the `patience`-th evaluation in a row without improvement.

    `rules.Patience` says what an improvement is; `RuleStopper` documents the common keywords.
    `baseline` is in the metric's own units. `lr_metric` and `schedule_end`: plateaus that the
    learning rate explains do not count (`rules.schedule.LrAware`).
    """

    @needs_objective
    def __init__(
        self,
        metric: str,
        mode: Mode,
        *,
        patience: int | Mapping[float, int] = 5,
        min_delta: float = 0.0,
        min_delta_mode: Literal["abs", "rel"] = "abs",
        baseline: float | None = None,
        smoothing: Smoothing | None = None,
        lr_metric: str | None = None,
        schedule_end: float | None = None,
        **common: Unpack[Common],
    ) -> None:
        baseline = as_loss(self, metric, mode, "baseline", baseline)
        rule = Patience(
            patience,
            min_delta,
            min_delta_mode,
            baseline,
            smoothing,
            lr_metric=lr_metric,
            schedule_end=schedule_end,
        )
        super().__init__(rule, metric, mode, **common)


class ThresholdStopper(RuleStopper):
    """Stops a trial, or the sweep, once the metric is past its target `patience` times in a row.

    Past means strictly better: below the threshold for "min", above it for "max". `threshold` is
    in the metric's own units. `rules.Threshold` has the details.
    """

    @needs_objective
    def __init__(
        self,
        metric: str,
        mode: Mode,
        *,
        threshold: float,
        patience: int = 1,
        smoothing: Smoothing | None = None,
        scope: Literal["trial", "sweep"] = "trial",
        **common: Unpack[Common],
    ) -> None:
        loss = as_loss(self, metric, mode, "threshold", threshold)
        rule = Threshold(cast(float, loss), patience, smoothing, scope=scope)
        super().__init__(rule, metric, mode, **common)


class DivergenceStopper(RuleStopper):
    """Stops a trial that has blown up: NaN, infinity, a value beyond `limit` or far off its best.

    `limit` is in the metric's own units. `rules.Divergence` has the details.
    """

    @needs_objective
    def __init__(
        self,
        metric: str,
        mode: Mode,
        *,
        nonfinite_strikes: int = 1,
        factor: float | None = 3.0,
        limit: float | None = None,
        gradient_limit: float | None = None,
        patience: int = 2,
        gradient_metric: str = "grad_norm",
        **common: Unpack[Common],
    ) -> None:
        limit = as_loss(self, metric, mode, "limit", limit)
        rule = Divergence(
            nonfinite_strikes, factor, limit, gradient_limit, patience, gradient_metric
        )
        super().__init__(rule, metric, mode, **common)


class MultiMetricStopper(RuleStopper):
    """Stops a trial whose composite of several metrics has not risen for `patience` evaluations.

    `metrics` maps each name to {"mode": "min" or "max", "weight": 1}. `combine="vote"` asks each
    metric apart: a weighted majority must have stalled. `rules.MultiMetric` has the formulas.
    """

    def __init__(
        self,
        metrics: Mapping[str, Mapping[str, Any]],
        *,
        patience: int = 5,
        scaling: Literal["reciprocal", "relative"] = "reciprocal",
        combine: Literal["score", "vote"] = "score",
        **common: Unpack[Common],
    ) -> None:
        super().__init__(MultiMetric(metrics, patience, scaling, combine), **common)


class AdaptivePatienceStopper(RuleStopper):
    """Patience that grows while a trial improves quickly and shrinks while it hardly does.

    With `scale="noise"`, one setting serves a loss near 0.01 and one near 10.
    `rules.AdaptivePatience` has the formulas.
    """

    @needs_objective
    def __init__(
        self,
        metric: str,
        mode: Mode,
        *,
        initial_patience: int = 5,
        min_patience: int = 2,
        max_patience: int = 20,
        window: int = 5,
        history: int = 10,
        grow_above: float = 0.01,
        shrink_below: float = 0.001,
        scale: Literal["abs", "noise"] = "abs",
        lr_metric: str | None = None,
        schedule_end: float | None = None,
        **common: Unpack[Common],
    ) -> None:
        rule = AdaptivePatience(
            initial_patience,
            min_patience,
            max_patience,
            window,
            history,
            grow_above,
            shrink_below,
            scale,
            lr_metric=lr_metric,
            schedule_end=schedule_end,
        )
        super().__init__(rule, metric, mode, **common)


class GradientStopper(RuleStopper):
    """Stops a trial whose curve is flat, or whose reported gradient norm has become small.

    `source="metric"`: `rules.Slope` over the last `window` evaluations, with `confidence` only
    where the slope's interval lies inside ± `threshold`. `source="grad_norm"`:
    `rules.GradientNorm`, which needs neither metric nor mode; `relative` to the trial's own early
    norms, ignoring the first `warmup` units of `time_attr`.
    """

    def __init__(
        self,
        metric: str | None = None,
        mode: Mode | None = None,
        *,
        threshold: float = 1e-3,
        patience: int = 5,
        source: Literal["metric", "grad_norm"] = "metric",
        window: int = 2,
        per: Literal["evaluation", "step"] = "evaluation",
        confidence: float | None = None,
        gradient_metric: str = "grad_norm",
        relative: bool = False,
        warmup: float = 0.0,
        lr_metric: str | None = None,
        schedule_end: float | None = None,
        **common: Unpack[Common],
    ) -> None:
        require_choice("source", source, ("metric", "grad_norm"))
        unused = relative or warmup if source == "metric" else confidence is not None
        if unused:
            raise ValueError(
                f"GradientStopper source={source!r} does not use "
                + ("relative and warmup." if source == "metric" else "confidence.")
            )
        rule: Rule = Slope(
            threshold,
            patience,
            window,
            per,
            confidence,
            lr_metric=lr_metric,
            schedule_end=schedule_end,
        )
        if source == "grad_norm":
            rule = GradientNorm(
                threshold,
                patience,
                gradient_metric,
                relative,
                warmup,
                lr_metric=lr_metric,
                schedule_end=schedule_end,
            )
        super().__init__(rule, metric, mode, **common)


class RecoveryStopper(RuleStopper):
    """Gives a trial that stopped improving `recovery_patience` more evaluations to come back.

    The decision alone: nothing is rolled back. `rules.Recovery` has the formula.
    """

    @needs_objective
    def __init__(
        self,
        metric: str,
        mode: Mode,
        *,
        patience: int = 5,
        recovery_patience: int = 3,
        max_recoveries: int | None = None,
        **common: Unpack[Common],
    ) -> None:
        rule = Recovery(patience, recovery_patience, max_recoveries)
        super().__init__(rule, metric, mode, **common)


class OverfitStopper(RuleStopper):
    """Stops a trial that overfits, by Prechelt's (1998) criteria GL, PQ or UP.

    `mode` holds for `metric` and `train_metric`. `rules.Overfit` has the formulas.
    """

    @needs_objective
    def __init__(
        self,
        metric: str,
        mode: Mode,
        *,
        train_metric: str | None = None,
        criterion: Literal["gl", "pq", "up"] = "gl",
        alpha: float = 5.0,
        strip: int = 5,
        strips: int = 3,
        lr_metric: str | None = None,
        schedule_end: float | None = None,
        **common: Unpack[Common],
    ) -> None:
        check_metric(type(self).__name__, metric, mode)
        sign = sign_of(mode)
        rule = Overfit(
            train_metric,
            criterion,
            alpha,
            strip,
            strips,
            sign,
            lr_metric=lr_metric,
            schedule_end=schedule_end,
        )
        super().__init__(rule, metric, mode, **common)
