"""Rules as `ray.tune.Stopper`, a few lines each."""

from collections.abc import Mapping
from typing import Literal, Unpack, cast

from tune_stoppers.core import Mode
from tune_stoppers.rules import Divergence, Patience, Threshold
from tune_stoppers.rules.smoothing import Smoothing
from tune_stoppers.tune.combined import AllOf as AllOf
from tune_stoppers.tune.combined import AnyOf as AnyOf
from tune_stoppers.tune.rule_stopper import Common, as_loss
from tune_stoppers.tune.rule_stopper import RuleStopper as RuleStopper


class PatienceStopper(RuleStopper):
    """Stops a trial at the `patience`-th evaluation in a row without improvement.

    `rules.Patience` says what an improvement is; `RuleStopper` documents the common keywords.
    `baseline` is in the metric's own units.
    """

    def __init__(
        self,
        metric: str | None = None,
        mode: Mode | None = None,
        *,
        patience: int | Mapping[float, int] = 5,
        min_delta: float = 0.0,
        min_delta_mode: Literal["abs", "rel"] = "abs",
        baseline: float | None = None,
        smoothing: Smoothing | None = None,
        **common: Unpack[Common],
    ) -> None:
        baseline = as_loss(self, metric, mode, "baseline", baseline)
        rule = Patience(patience, min_delta, min_delta_mode, baseline, smoothing)
        super().__init__(rule, metric, mode, **common)


class ThresholdStopper(RuleStopper):
    """Stops a trial, or the sweep, once the metric is past its target `patience` times in a row.

    Past means strictly better: below the threshold for "min", above it for "max". `threshold` is
    in the metric's own units. `rules.Threshold` has the details.
    """

    def __init__(
        self,
        metric: str | None = None,
        mode: Mode | None = None,
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

    def __init__(
        self,
        metric: str | None = None,
        mode: Mode | None = None,
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
