"""Smoothing of a watched value: exponential mean, or mean or median of a window."""

from collections.abc import Mapping
from statistics import fmean, median_high, median_low

from tune_stoppers.core import require, require_number

Smoothing = Mapping[str, float]

LONGEST = 50  # evaluations in a window: a rule's state stays under 1 KB


def check_smoothing(smoothing: Smoothing | None) -> None:
    """Raise `ValueError` unless `smoothing` is None or {"ema"|"mean"|"median": number}."""
    if smoothing is None:
        return
    wrong = f'smoothing is one of {{"ema": 0.9}}, {{"mean": 5}}, {{"median": 5}}, got {smoothing!r}'
    require(isinstance(smoothing, Mapping) and len(smoothing) == 1, f"{wrong}.")
    ((kind, size),) = smoothing.items()
    require(kind in ("ema", "mean", "median"), f"{wrong}.")
    if kind == "ema":
        require_number("smoothing ema", size, at_least=0, below=1)
    else:
        require_number(f"smoothing {kind}", size, at_least=1, at_most=LONGEST, integer=True)


def smooth(
    smoothing: Smoothing | None, window: tuple[float, ...], value: float
) -> tuple[tuple[float, ...], float]:
    """The new window and the smoothed value.

    {"ema": a}: s = a·s + (1 - a)·value, the first value as it is. {"mean": n}, {"median": n}:
    over the newest n values (n up to 50), over fewer while there are fewer.
    """
    if smoothing is None:
        return window, value
    ((kind, size),) = smoothing.items()
    if kind == "ema":
        smoothed = size * window[0] + (1 - size) * value if window else value
        return (smoothed,), smoothed
    window = (*window, value)[-int(size) :]
    if kind == "median":
        return window, median_low(window) / 2 + median_high(window) / 2  # never overflows
    try:
        return window, fmean(window)
    except OverflowError:  # the sum of huge values, not their mean
        return window, sum(value / len(window) for value in window)
