"""Scores of search rules, from how the regret of the best trial found falls over time.

Everything here is a pure function; times may be in any unit, the same throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

Floats = npt.NDArray[np.float64]
WORST = 1.0  # normalised regret while nothing finite has been reported


class RegretCurve(NamedTuple):
    """Regret as a step function of time: `WORST` from 0, then `values[i]` from `times[i]` on."""

    times: Floats
    values: Floats


def regret_curve(
    incumbent: pd.DataFrame, regret_of: Callable[[float], float], *, unit: float = 1.0
) -> RegretCurve:
    """The regret of a replay's `incumbent`, by its `regret_of`, with times divided by `unit`."""
    if not 0 < unit < math.inf:
        raise ValueError(f"unit must be a positive time, got {unit}.")
    values = np.array([regret_of(float(value)) for value in incumbent["value"]], dtype=float)
    return RegretCurve(incumbent["time"].to_numpy(dtype=float) / unit, values)


def value_at(curve: RegretCurve, time: float) -> float:
    """The regret at `time`; an improvement counts from its own time on."""
    index = int(np.searchsorted(curve.times, time, side="right"))
    return float(curve.values[index - 1]) if index else WORST


def area(curve: RegretCurve, budget: float) -> float:
    """The mean regret over [0, `budget`]: the exact integral of the steps, divided by `budget`."""
    if not 0 < budget < math.inf:
        raise ValueError(f"budget must be a positive time, got {budget}.")
    seen = curve.times < budget
    edges = np.concatenate([[0.0], curve.times[seen], [budget]])
    heights = np.concatenate([[WORST], curve.values[seen]])
    return float(np.diff(edges) @ heights / budget)


def time_to(curve: RegretCurve, level: float) -> float:
    """When the regret is first at `level` or below; infinite if never, 0 for the worst level."""
    if level >= WORST:
        return 0.0
    hits = np.flatnonzero(curve.values <= level)
    return float(curve.times[hits[0]]) if hits.size else math.inf


def speedup(baseline: RegretCurve, rule: RegretCurve, *, at: float, budget: float) -> float:
    """How many times sooner `rule` is at the regret that `baseline` has at time `at`.

    The time at which the baseline got there, divided by the time at which the rule did. A rule
    that is not there by `budget` counts as if it got there just then: a censored value, 1 at most,
    and kinder to the rule than the truth.
    """
    level = value_at(baseline, at)
    return ratio(time_to(baseline, level), time_to(rule, level), budget)


def ratio(baseline: float, rule: float, budget: float) -> float:
    """`baseline` / `rule`, two times, each counted as `budget` where it lies beyond; 0 / 0 is 1."""
    one, other = min(baseline, budget), min(rule, budget)
    return 1.0 if one == other else one / other if other > 0 else math.inf


def mean_curve(curves: Sequence[RegretCurve]) -> RegretCurve:
    """The mean of several curves: again a step function, exact."""
    times = np.unique(np.concatenate([curve.times for curve in curves]))
    indices = [np.searchsorted(curve.times, times, side="right") for curve in curves]
    values = [
        np.concatenate([[WORST], curve.values])[index]
        for curve, index in zip(curves, indices, strict=True)
    ]
    return RegretCurve(times, np.mean(values, axis=0))


def wins_ties_losses(
    ours: Iterable[float], theirs: Iterable[float], *, tolerance: float = 1e-9
) -> tuple[int, int, int]:
    """How often ours is lower (a win), within `tolerance`, and higher, pair by pair."""
    pairs = list(zip(ours, theirs, strict=True))
    wins = sum(a < b - tolerance for a, b in pairs)
    losses = sum(a > b + tolerance for a, b in pairs)
    return wins, len(pairs) - wins - losses, losses


def average_ranks(scores: pd.DataFrame) -> pd.Series:
    """Per column (a rule) its mean rank over the rows (a task and ordering); 1 is best.

    Lower scores are better; equal ones share their mean rank. Rows with a gap are left out, so
    that every rule is ranked on the same ones; NaN where no row is whole.
    """
    return scores.dropna().rank(axis=1).mean()


def wilcoxon_p(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The two-sided p of Wilcoxon's signed-rank test on paired task means (Demšar 2006).

    NaN with fewer than two tasks; 1 where no pair differs.
    """
    differences = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    if len(differences) < 2:
        return math.nan
    if not differences.any():
        return 1.0
    return float(stats.wilcoxon(differences).pvalue)


def mean_and_se(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error (sd / √n, sd with n − 1); an error of NaN for one value."""
    numbers = np.asarray(values, dtype=float)
    if not len(numbers):
        return math.nan, math.nan
    if len(numbers) == 1:
        return float(numbers[0]), math.nan
    return float(numbers.mean()), float(numbers.std(ddof=1) / math.sqrt(len(numbers)))


def geometric_mean(values: Sequence[float]) -> float:
    """The mean of ratios: exp of the mean logarithm; NaN of none."""
    numbers = np.asarray(values, dtype=float)
    return float(np.exp(np.log(numbers).mean())) if len(numbers) else math.nan
