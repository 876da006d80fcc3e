"""`ForecastStopper`: one record for the whole sweep, of which each trial's reports are part."""

import os
from collections.abc import Iterable
from typing import Any

from tune_stoppers.core import BaseRule, Mode
from tune_stoppers.rules.sweep.forecast import Forecast
from tune_stoppers.tune.stoppers.of_rule import StopperOfRule


class ForecastStopper(StopperOfRule):
    """Stops a trial once its future best will hardly beat the target.

    ::

        ForecastStopper("eval_loss", "min", max_t=100)  # P(beats the sweep's best) < 0.05
        ForecastStopper("accuracy", "max", max_t=100, probability=0.01, target=0.9)

    The forecast is learnt from the sweep's own trials: it needs some that have run to the end,
    and decides only where, on those, it has done better than "the last value persists".
    `rules.Forecast` has the formula, `tune_stoppers.forecast.Forecaster` the forecast. Of trials
    that a scheduler stops it never learns the end: to prune by rank and by forecast at once, use a
    scheduler that does both.
    """

    rule_class = Forecast
    in_metric_units = ("target",)

    @classmethod
    def make_rule(cls, mode: Mode, *, history: Iterable[Any] = (), **parameters: Any) -> BaseRule:
        alone = isinstance(history, str | os.PathLike) or hasattr(history, "curves")
        return Forecast(history=(history,) if alone else tuple(history), **parameters)
