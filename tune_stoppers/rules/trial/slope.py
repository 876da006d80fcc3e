"""Slope: stop a trial whose loss has become flat."""

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import Literal, NamedTuple

from tune_stoppers.core import Decision, Report, require, require_choice, require_number
from tune_stoppers.rules.schedule import LrAware

Verdict = Literal["flat", "moving", "undecidable"]
MAX_WINDOW = 30  # keeps a trial's state below 1 KB and its 435 pairs cheap


class SlopeState(NamedTuple):
    """What `Slope` remembers."""

    losses: tuple[float, ...]  # the newest `window` finite losses
    steps: tuple[float, ...]  # their steps; empty where slopes are per evaluation
    loss: float  # the newest loss; infinity stands for any that was not finite
    slope: float | None  # at the newest loss; None: it cannot be said
    margin: float  # half the width of the slope's interval; 0 without `confidence`
    flat: int  # evaluations in a row whose slope is flat


@dataclass(frozen=True)
class Slope(LrAware):
    """Stop at the `patience`-th evaluation in a row at which the loss is flat.

    Formula: flat iff |slope| < `threshold`, strictly, for slope = the median of
    (lossⱼ - lossᵢ)/(xⱼ - xᵢ) over all pairs i < j of the newest `window` finite evaluations (Theil
    1950, Sen 1968); with a window of 2 that is the plain difference. x counts the finite
    evaluations, or is the step. A loss that rises steeply is not flat.

    With `confidence` the slope is that of least squares, with the interval slope ± m at Student's
    t with `window` - 2 degrees of freedom, and there are three verdicts: flat iff |slope| + m <
    `threshold` (the interval lies inside ±`threshold`), still moving iff |slope| - m >=
    `threshold` (it lies outside), else undecidable. This is the test of equivalence (Schuirmann
    1987), so noise postpones a stop and never causes one.

    Args:
        threshold: loss units per `per`, above 0.
        patience: evaluations in a row, at least 1.
        window: finite evaluations, 2 to 30; at least 3 with `confidence`.
        per: "evaluation", or "step" for slopes per unit of `time_attr`.
        confidence: of the interval, between 0 and 1; None: no interval.
        lr_metric, schedule_end: learning-rate awareness, see `rules.schedule.LrAware`; what does
            not count is left out of the window.

    No evaluation before the `window`-th finite one counts, so the first never does. A moving or
    undecidable one ends the row. So does NaN or an infinity ("worst"), which is not flat; it is
    left out of the window. A tie with the threshold is not flat; equal losses have slope 0. A
    report without the metric, or at a step already seen, changes nothing.

    Example: threshold 0.1, patience 2: losses 3, 2, 1.95, 1.5, 1.45, 1.45 stop at the sixth.
    """

    threshold: float = 1e-3
    patience: int = 5
    window: int = 2
    per: Literal["evaluation", "step"] = "evaluation"
    confidence: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("threshold", self.threshold, above=0)
        require_number("patience", self.patience, at_least=1, integer=True)
        require_number("window", self.window, at_least=2, integer=True)
        require(self.window <= MAX_WINDOW, f"window must be <= {MAX_WINDOW}, got {self.window}.")
        require_choice("per", self.per, ("evaluation", "step"))
        if self.confidence is not None:
            require_number("confidence", self.confidence, above=0, below=1)
            wide = self.window >= 3
            require(wide, f"confidence needs window >= 3, got {self.window}; give 5, say.")

    def start(self) -> SlopeState:
        return SlopeState((), (), math.inf, None, 0.0, 0)

    def observe(self, own: SlopeState, report: Report) -> SlopeState:
        assert report.loss is not None
        if not math.isfinite(report.loss):
            return own._replace(loss=math.inf, slope=None, flat=0)
        losses = (*own.losses, report.loss)[-self.window :]
        steps = (*own.steps, report.step)[-self.window :] if self.per == "step" else ()
        if len(losses) < self.window:
            return SlopeState(losses, steps, report.loss, None, 0.0, 0)
        slope, margin = self._fit(steps or tuple(map(float, range(self.window))), losses)
        flat = own.flat + 1 if self._verdict(slope, margin) == "flat" else 0
        return SlopeState(losses, steps, report.loss, slope, margin, flat)

    def decide(self, own: SlopeState) -> Decision:
        if not math.isfinite(own.loss):
            return self.keep("value not finite, which is not flat")
        if own.slope is None:
            text = "{seen} of the {window} evaluations that a slope needs"
            return self.keep(text, seen=len(own.losses), window=self.window)
        numbers = {"slope": own.slope, "threshold": self.threshold}
        text = "slope {slope:loss}"
        if self.confidence is not None:
            text += " ± {margin} (confidence {confidence})"
            numbers |= {"margin": own.margin, "confidence": self.confidence}
        text += f" per {self.per} "
        verdict = self._verdict(own.slope, own.margin)
        if verdict == "moving":
            return self.keep(text + "is not within ±{threshold}: still moving", **numbers)
        if verdict == "undecidable":
            return self.keep(text + "may be within ±{threshold} or not: undecidable", **numbers)
        text += "is within ±{threshold}: flat, {flat} of {patience} in a row"
        decide = self.stop if own.flat >= self.patience else self.keep
        return decide(text, flat=own.flat, patience=self.patience, **numbers)

    def _fit(self, xs: tuple[float, ...], losses: tuple[float, ...]) -> tuple[float, float]:
        """The slope and the margin of its interval."""
        if self.confidence is None:
            return theil_sen(xs, losses), 0.0
        slope, error = least_squares(xs, losses)
        return slope, error * student_t(self.confidence, self.window - 2)

    def _verdict(self, slope: float, margin: float) -> Verdict:
        if abs(slope) + margin < self.threshold:
            return "flat"
        if abs(slope) - margin >= self.threshold:
            return "moving"
        return "undecidable"  # also where huge values overflow to NaN


def theil_sen(xs: tuple[float, ...], ys: tuple[float, ...]) -> float:
    """The median slope of all pairs of points; the xs rise."""
    pairs = ((i, j) for j in range(len(xs)) for i in range(j))
    return median((ys[j] - ys[i]) / (xs[j] - xs[i]) for i, j in pairs)


def least_squares(xs: tuple[float, ...], ys: tuple[float, ...]) -> tuple[float, float]:
    """The slope of the line of least squares and its standard error; at least 3 points."""
    count, span = len(xs), xs[-1] - xs[0]
    us = [(x - xs[0]) / span for x in xs]  # from 0 to 1, so that no square vanishes
    u_mean, y_mean = sum(us) / count, sum(ys) / count
    spread = sum((u - u_mean) * (u - u_mean) for u in us)
    slope = sum((u - u_mean) * (y - y_mean) for u, y in zip(us, ys, strict=True)) / spread
    residuals = [y - y_mean - slope * (u - u_mean) for u, y in zip(us, ys, strict=True)]
    error = math.sqrt(sum(r * r for r in residuals) / (count - 2) / spread)
    return slope / span, error / span


@lru_cache(maxsize=256)
def student_t(confidence: float, freedom: int) -> float:
    """The t with P(|T| < t) = `confidence` for Student's T with `freedom` degrees of freedom."""
    from scipy.special import stdtrit  # with the first interval

    return abs(float(stdtrit(freedom, (1 - confidence) / 2)))  # there no digit is lost
