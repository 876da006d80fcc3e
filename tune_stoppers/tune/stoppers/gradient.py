"""`GradientStopper`: one of two rules, by the source of the gradient."""

import inspect
from typing import Any, Literal

from tune_stoppers.core import BaseRule, Mode, require_choice
from tune_stoppers.rules.trial.gradient_norm import GradientNorm
from tune_stoppers.rules.trial.slope import Slope
from tune_stoppers.tune.stoppers.of_rule import StopperOfRule


class GradientStopper(StopperOfRule):
    """Stops a trial whose curve is flat, or whose reported gradient norm has become small.

    ::

        GradientStopper("loss", "min", patience=2)  # loss 3, 1, 1, 1: stops at report 4
        norm = {"source": "grad_norm", "threshold": 0.5}
        GradientStopper(patience=1, **norm)  # grad_norm 0.1, 0.6, 0.4: stops at report 3

    `source="metric"`: `rules.Slope` over the last `window` evaluations, with `confidence` only
    where the slope's interval lies inside ± `threshold`. `source="grad_norm"`:
    `rules.GradientNorm`, which needs neither metric nor mode; `relative` to the trial's own early
    norms, ignoring the first `warmup` units of `time_attr`.

    Args:
        threshold: units of the metric per `per`, or units of the norm (a share of the early norm if
            `relative`); above 0.
        source: "metric", the slope of the metric, or "grad_norm", a gradient norm that trials
            report.
    """

    rule_class = Slope
    also_of = (GradientNorm,)
    needs_metric = False

    @classmethod
    def make_rule(
        cls, mode: Mode, *, source: Literal["metric", "grad_norm"] = "metric", **parameters: Any
    ) -> BaseRule:
        require_choice("source", source, ("metric", "grad_norm"))
        relative, warmup = parameters["relative"], parameters["warmup"]
        if source == "metric" and (relative or warmup):
            raise ValueError("GradientStopper source='metric' does not use relative and warmup.")
        if source == "grad_norm" and parameters["confidence"] is not None:
            raise ValueError("GradientStopper source='grad_norm' does not use confidence.")
        slope = Slope(**_those_of(Slope, parameters))  # also checks what it alone takes
        if source == "metric":
            return slope
        return GradientNorm(**_those_of(GradientNorm, parameters))


def _those_of(kind: type[BaseRule], parameters: dict[str, Any]) -> dict[str, Any]:
    taken = inspect.signature(kind).parameters
    return {key: value for key, value in parameters.items() if key in taken}
