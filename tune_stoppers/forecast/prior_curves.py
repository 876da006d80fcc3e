"""The prior: what learning curves look like before a sweep has shown its own.

A bank of shapes over the whole of training, in equal numbers: power laws; stretched
exponentials; curves that have stopped improving early; that have not yet begun; that turn up
again; that drop late. A trial's curve is y = a + b·g(t) for each shape g, with conjugate normal
priors on a and b; the shapes are weighted by their marginal likelihood, tempered since the errors
of neighbouring reports go together (Domhan et al. 2015 weigh parametric families so).
"""

from functools import cache

import numpy as np

from tune_stoppers.forecast.curve import EDGES, Curve, Glimpse
from tune_stoppers.forecast.distribution import Floats, Forecast, Ints

SHAPES = 120
POINTS = 16  # of a curve that the shapes are fitted to, denser towards the start
TEMPER = 0.3
LEAST = 1e-100  # a smaller move is none: its square is still a number
RESOLUTION = 0.01  # of what the trial has moved: no curve is followed more closely


@cache
def bank() -> tuple[Floats, Floats]:
    """The shapes on the grid, one a row, and the lowest value that each has after a cell."""
    draws = np.random.default_rng(7)
    x = np.array(EDGES)
    rows = []
    for number in range(SHAPES):
        power = np.exp(draws.normal(-0.3, 0.7))
        kind = number % 6
        if kind < 2:
            start = 10 ** draws.uniform(-3, -1)
            rows.append(((x + start) / start) ** -power)
        elif kind == 2:
            rows.append(np.exp(-(10 ** draws.uniform(0, 2)) * x ** draws.uniform(0.5, 1.5)))
        elif kind == 3:
            rows.append(np.exp(-(10 ** draws.uniform(1, 2.5)) * x))
        elif kind == 4:
            begun = np.maximum(x - draws.uniform(0, 0.3), 0)
            rows.append(((begun + 0.01) / 0.01) ** -power)
        elif number % 12 == 5:
            falls = np.exp(-(10 ** draws.uniform(0.5, 1.7)) * x)
            rows.append(falls + draws.uniform(0.05, 1) * x ** draws.uniform(1, 2))
        else:
            late = draws.uniform(0.5, 0.9)
            anneal = draws.uniform(0.05, 0.5) * np.maximum(x - late, 0) / (1 - late)
            rows.append(((x + 0.01) / 0.01) ** -power - anneal)
    shapes = np.array(rows)
    lowest = np.minimum.accumulate(shapes[:, ::-1], axis=1)[:, ::-1]
    return shapes, np.column_stack([lowest[:, 1:], lowest[:, -1]])


@cache
def _chosen(index: int) -> Ints:
    """Of the indices up to `index`, at most `POINTS`, denser towards the start."""
    points = np.geomspace(1, index + 1, min(index + 1, POINTS)).round().astype(np.int64)
    return np.asarray(np.unique(points) - 1)


def from_bank(curve: Curve, index: int, seen: Glimpse) -> Forecast:
    """The forecast of the bank alone, at the `index`-th of the curve's cells."""
    shapes, lowest = bank()
    chosen = _chosen(index)
    cell = curve.cells[index]
    losses = np.array(curve.lasts)[chosen] - seen.last
    moved = float(losses.max() - losses.min())
    ahead = lowest[:, cell] - shapes[:, cell]
    even = np.full(SHAPES, 1 / SHAPES)
    if moved < LEAST:
        return Forecast(seen.last + ahead * seen.spread, even, np.full(SHAPES, seen.spread / 10))
    at = shapes[:, np.array(curve.cells)[chosen]] - shapes[:, cell, None]
    count = len(losses)
    error = max(seen.noise, RESOLUTION * moved) ** 2
    # y ~ N(a + b·g, s²), a ~ N(0, 4·error), b ~ N(moved, 4·moved²), s² ~ IG(2, 2·error)
    shrink = 1 / (4 * moved**2) * error
    aa, ab, bb = count + 0.25, at.sum(1), (at * at).sum(1) + shrink
    ra, rb = losses.sum(), at @ losses + shrink * moved
    determinant = aa * bb - ab * ab
    a, b = (bb * ra - ab * rb) / determinant, (aa * rb - ab * ra) / determinant
    left = losses @ losses + shrink * moved**2 - a * ra - b * rb
    scale, degrees = 2 * error + 0.5 * np.maximum(left, 0), 2 + 0.5 * count
    logs = TEMPER * (-0.5 * np.log(determinant) - degrees * np.log(scale))
    logs = np.where(b > 0, logs, -np.inf)  # a shape upside down is no learning curve
    if not (b > 0).any():
        logs, b = np.zeros(SHAPES), np.zeros(SHAPES)
    weights = np.exp(logs - logs.max())
    return Forecast(
        seen.last + a + b * ahead, weights / weights.sum(), 0.7 * np.sqrt(scale / degrees)
    )
