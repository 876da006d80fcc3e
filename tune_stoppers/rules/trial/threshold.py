"""Threshold: stop a trial, or the sweep, that has reached its target."""

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from tune_stoppers.core import Decision, Report, Rule, require_choice, require_number
from tune_stoppers.rules.smoothing import Smoothing, check_smoothing, smooth


class ThresholdState(NamedTuple):
    """What `Threshold` remembers."""

    past: int  # evaluations in a row past the threshold
    loss: float  # the newest (smoothed) loss
    window: tuple[float, ...]  # what the smoothing needs


@dataclass(frozen=True)
class Threshold(Rule):
    """Stop once the (smoothed) loss is past the threshold `patience` times in a row.

    Formula: loss < `threshold`, strictly. Reaching it exactly does not count.

    Args:
        threshold: loss units (for a maximised metric: negated).
        patience: evaluations in a row, at least 1.
        smoothing: {"ema": 0.9}, {"mean": 5} or {"median": 5}, for noisy training losses.
        scope: "trial" ends this trial; "sweep" ends every trial once one has reached the target.

    NaN and infinities ("worst") break the row and are left out of the smoothing. A report without
    the metric, or at a step already seen, changes nothing.

    Example: threshold 0.1, patience 2: losses 0.2, 0.09, 0.1, 0.08, 0.07 stop at the fifth.
    """

    threshold: float
    patience: int = 1
    smoothing: Smoothing | None = None
    scope: Literal["trial", "sweep"] = field(default="trial", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("threshold", self.threshold)
        require_number("patience", self.patience, at_least=1, integer=True)
        require_choice("scope", self.scope, ("trial", "sweep"))
        check_smoothing(self.smoothing)

    def start(self) -> ThresholdState:
        return ThresholdState(0, math.inf, ())

    def observe(self, own: ThresholdState, report: Report) -> ThresholdState:
        assert report.loss is not None
        if not math.isfinite(report.loss):
            return own._replace(past=0, loss=report.loss)
        window, loss = smooth(self.smoothing, own.window, report.loss)
        return ThresholdState(own.past + 1 if loss < self.threshold else 0, loss, window)

    def decide(self, own: ThresholdState) -> Decision:
        numbers = {"loss": own.loss, "threshold": self.threshold, "past": own.past}
        if own.past == 0:
            return self.keep("{loss:loss} is not past the threshold {threshold:loss}", **numbers)
        text = "{loss:loss} is past the threshold {threshold:loss}, {past} of {patience} in a row"
        done = own.past >= self.patience
        return (self.stop if done else self.keep)(text, patience=self.patience, **numbers)
