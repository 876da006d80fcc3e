"""`ForecastStopper`: one record for the whole sweep, of which each trial's reports are part."""

from collections.abc import Iterable
from typing import Any, Unpack

from tune_stoppers.core import Mode
from tune_stoppers.rules.sweep.forecast import Forecast
from tune_stoppers.tune.stoppers.base import Common, RuleStopper, as_loss, needs_objective


class ForecastStopper(RuleStopper):
    """Stops a trial once its future best will hardly beat the target.

    ::

        ForecastStopper("eval_loss", "min", max_t=100)  # P(beats the sweep's best) < 0.05
        ForecastStopper("accuracy", "max", max_t=100, probability=0.01, target=0.9)

    The forecast is learnt from the sweep's own trials: it needs some that have run to the end,
    and decides only where, on those, it has done better than "the last value persists".
    `rules.Forecast` has the formula, `tune_stoppers.forecast.Forecaster` the forecast. `target`
    is in the metric's own units. Of trials that a scheduler stops it never learns the end: to
    prune by rank and by forecast at once, use a scheduler that does both.
    """

    @needs_objective
    def __init__(
        self,
        metric: str,
        mode: Mode,
        *,
        max_t: float,
        probability: float = 0.05,
        target: float | None = None,
        history: Iterable[Any] = (),
        lr_metric: str | None = None,
        schedule_end: float | None = None,
        **common: Unpack[Common],
    ) -> None:
        rule = Forecast(
            max_t=max_t,
            probability=probability,
            target=as_loss(self, metric, mode, "target", target),
            history=tuple(history),
            start_after=common.pop("start_after", 0),
            lr_metric=lr_metric,
            schedule_end=schedule_end,
        )
        super().__init__(rule, metric, mode, **common)
