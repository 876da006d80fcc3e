"""Axes: from values to positions, what range to show, and where the labels go. No drawing here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median_low

import numpy as np

from tune_stoppers.report.data.story import Parameter, Points, Story

WIDE = 30.0  # a range of positive values this many times its low end is shown in logarithms
SMALLEST, LARGEST = 1e-280, 1e280  # what floats still divide by each other, in logarithms as well
SPREAD = 8.0  # the same for hyperparameters: batch sizes are factors
RATES = ("lr", "learning_rate", "weight_decay")  # in names of what is judged by factors
RATE_SPREAD, RATE_FLOOR = 2.5, 100.0  # a rate's; a schedule's end below its peak, as a factor
DISCRETE = 8  # values of a hyperparameter that are labelled themselves
PANEL, LETTER = 210.0, 6.2  # pixels: the width of a panel and of a letter
UNITS = (("d", 86400.0), ("h", 3600.0), ("min", 60.0))
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Scale:
    """Values between `low` and `high` as positions from 0 to 1; beyond them, on the edge."""

    low: float
    high: float
    log: bool = False

    def has(self, value: float) -> bool:
        """Whether a value lies on the axis."""
        return self.low <= value <= self.high

    def position(self, value: float) -> float:
        """Where a value lies, 0 at `low` and 1 at `high`, never beyond."""
        return math.nan if math.isnan(value) else self.share(self.clamp(value))

    def share(self, value: float) -> float:
        """The same for a finite value, also beyond: below 0 or above 1."""
        if self.log:
            base = math.log(self.low)
            return (math.log(max(value, SMALLEST)) - base) / (math.log(self.high) - base)
        return (value - self.low) / (self.high - self.low)

    def clamp(self, value: float, sign: int = 1) -> float:
        """The value, or the edge that it lies beyond; the bad edge for what is not a number."""
        if math.isnan(value):
            return self.high if sign > 0 else self.low
        return min(max(value, self.low), self.high)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values inside the range, about `count` of them."""
        if self.log:
            return _log_ticks(self.low, self.high, count)
        raw = (self.high - self.low) / max(count, 1)
        size = 10.0 ** math.floor(math.log10(raw))
        step = min((size * factor for factor in STEPS), key=lambda near: abs(math.log(near / raw)))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


def scale_of(
    values: Iterable[float], *, pad: float = 0.0, log: bool | None = None, wide: float = WIDE
) -> Scale:
    """The whole range of the finite values; logarithmic where `wide`, unless `log` says.

    `pad`: share of the range added at both ends. One value alone gets a range around it.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return Scale(0.0, 1.0)
    return _scale(min(finite), max(finite), pad, log, wide)


def objective_scale(
    values: Iterable[float], sign: int, *, tail: float = 90, shown: Iterable[float] = ()
) -> Scale:
    """The range of a metric that a few bad trials do not stretch.

    From the best value to the `tail`-th percentile of the finite values in the bad direction, or
    to the worst of those to be `shown` in any case; to the worst of all if that is not far.
    """
    finite = np.array([value for value in values if math.isfinite(value)])
    losses = sign * np.clip(finite, -LARGEST, LARGEST)
    if not losses.size:
        return Scale(0.0, 1.0)
    low, high = float(losses.min()), float(np.percentile(losses, tail))
    high = max([high, *(sign * value for value in shown if math.isfinite(value))])
    if float(losses.max()) <= high + 0.3 * (high - low):
        high = float(losses.max())  # there is no tail
    ends = sorted((sign * low, sign * high))
    return _scale(ends[0], ends[1], 0.04)


def curve_scale(story: Story) -> Scale:
    """The range of a story's learning curves: the best one is seen whole."""
    values = [value for trial in story.trials for _, value in trial.curve]
    shown = [value for _, value in story.best.curve] if story.best else []
    return objective_scale(values, story.sign, tail=75, shown=shown)


def parameter_scale(parameter: Parameter) -> Scale:
    """The range of a numeric hyperparameter.

    A rate's is logarithmic from a factor of 2.5 on, another's from 8 on, if the median of the
    values tried then lies nearer to the middle: uniform draws stay on a linear axis.
    """
    values = parameter.distinct
    if is_rate(parameter.name):
        return scale_of(values, pad=0.04, wide=RATE_SPREAD)
    scales = [scale_of(values, pad=0.04, log=log, wide=SPREAD) for log in (None, False)]
    return min(scales, key=lambda s: round(abs(s.position(median_low(values)) - 0.5), 2))


def metric_scale(name: str, curves: Sequence[Points]) -> Scale:
    """The range of a further metric: a learning rate by factors, others as the objective.

    A schedule's way to zero does not stretch it: it ends at a hundredth of the lowest peak.
    """
    finite = [value for curve in curves for _, value in curve if math.isfinite(value)]
    peaks = [max((v for _, v in curve if math.isfinite(v)), default=0.0) for curve in curves]
    peaks = [peak for peak in peaks if peak > 0]
    if is_rate(name) and peaks:
        floor = min(peaks) / RATE_FLOOR
        return scale_of([value for value in finite if value >= floor], pad=0.03, log=True)
    y = objective_scale(finite, 1)
    if y.log or min(finite, default=0.0) >= 0:
        y = scale_of([min(value, y.high) for value in finite], pad=0.03)
    return y


def is_rate(name: str) -> bool:
    """Whether a name is that of a learning rate or a weight decay, which differ by factors."""
    last = name.replace(".", "/").rpartition("/")[2].lower()
    return last in RATES or any(last.endswith(f"_{rate}") for rate in RATES)


def value_ticks(scale: Scale, values: Sequence[float]) -> tuple[tuple[float, str], ...]:
    """The labels of a hyperparameter: the values tried where they are few, else round ones."""
    if len(values) > DISCRETE:
        return tuple((value, short(value)) for value in scale.ticks(4))
    chosen: list[tuple[float, str]] = []
    for value in values:
        text = short(value)
        if chosen:
            apart = PANEL * (scale.position(value) - scale.position(chosen[-1][0]))
            letters = (len(text) + len(chosen[-1][1])) / 2 + 1
            letters += len(text) / 2 if value == values[-1] else 0  # it ends at the edge
            if apart < LETTER * letters:
                continue  # the labels would lie on each other
        chosen.append((value, text))
    return tuple(chosen)


def _scale(
    low: float, high: float, pad: float, log: bool | None = None, wide: float = WIDE
) -> Scale:
    low, high = (min(max(end, -LARGEST), LARGEST) for end in (low, high))
    if high - low < SMALLEST:
        width = abs(low) / 10 if abs(low) > SMALLEST else 1.0
        return Scale(low - width, high + width)
    log = low > SMALLEST and high / wide >= low if log is None else log and low > SMALLEST
    if log:
        factor = math.exp((math.log(high) - math.log(low)) * pad)
        return Scale(low / factor, high * factor, True)
    width = (high - low) * pad
    return Scale(low - width, high + width)


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = [10.0**power for power in range(first, last + 1)]
    inside = [value for value in decades if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    if len(inside) > count:
        return inside[:: math.ceil(len(inside) / count)]
    if len(inside) >= 3:
        return inside
    finer = [digit * value for value in decades for digit in (1, 2, 5)]
    return [value for value in finer if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]


def short(value: float) -> str:
    """A number for a label: four digits, no more than needed."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    return f"{value + 0.0:.4g}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")


def cut(text: str, room: int) -> str:
    """A text of at most `room` letters."""
    return text if len(text) <= room else text[: room - 1] + "…"


def unit_of_time(end: float) -> tuple[str, float]:
    """The name and the size in seconds of the unit in which times up to `end` are shown."""
    return next(((name, size) for name, size in UNITS if end >= 2 * size), ("s", 1.0))


def time_axis(clock: str, end: float) -> tuple[str, float]:
    """The name of an axis of times up to `end` and the size of its unit, for a story's clock."""
    if clock == "reports":
        return "virtual time, reports", 1.0
    name, size = unit_of_time(end)
    return f"time since the first start, {name}", size


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 3.5 min, 2.1 h, 4.0 d."""
    unit, size = unit_of_time(abs(seconds))
    if unit != "s":
        return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s" if abs(seconds) < 10 else f"{seconds:.0f} s"
