"""A learning curve on a grid of progress, and what a forecast is made from at a point of it."""

from bisect import bisect_left
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from tune_stoppers.forecast.distribution import Floats, Ints

FIRST, RATIO, STRIDE = 0.01, 1.09, 1 / 48  # the grid: 9 % of the time, at most 1/48 of the whole
LARGEST = 1e100  # loss, either way: its square is a number still
RECENT = 6  # newest cells that the noise is measured on


def _edges() -> list[float]:
    edges = [FIRST]
    while edges[-1] < 1:
        edges.append(min(edges[-1] * RATIO, edges[-1] + STRIDE))
    return edges


EDGES = _edges()  # of the cells, as shares of the horizon; a cell reaches up to its edge
CELLS = len(EDGES)


def cell_of(share: float) -> int:
    """The cell of a time, given as a share of the horizon."""
    return min(bisect_left(EDGES, share - 1e-9), CELLS - 1)


HALVES = [cell_of(edge / 2) for edge in EDGES]  # the cell of half the time


class Glimpse(NamedTuple):
    """A trial as seen at one point of its curve, in units of the loss."""

    last: float
    best: float
    drop: float  # from half the time to the best
    spread: float  # what the trial has moved, or three times its noise: never 0
    noise: float
    rate: float  # learning rate as a share of its maximum so far; NaN: not reported

    def query(self) -> "Glimpses":
        """As one row, to be compared with many trials."""
        return Glimpses(*(np.full((1, 1), value) for value in self))


class Glimpses(NamedTuple):
    """Many trials, an entry each in every column."""

    last: Floats
    best: Floats
    drop: Floats
    spread: Floats
    noise: Floats
    rate: Floats

    def of(self, row: int) -> Glimpse:
        """One of them."""
        return Glimpse(*(float(column[row]) for column in self))

    def queries(self) -> "Glimpses":
        """A row each, to be compared with many trials."""
        return Glimpses(*(column[:, None] for column in self))


@dataclass(slots=True)
class Curve:
    """The reports of a trial, one entry a cell: bounded, whatever the number of reports."""

    cells: list[int] = field(default_factory=list)
    lasts: list[float] = field(default_factory=list)  # the last loss in each cell
    lows: list[float] = field(default_factory=list)  # the best loss in each cell
    rates: list[float] = field(default_factory=list)  # the last learning rate in each cell
    time: float = -np.inf

    def add(self, time: float, share: float, loss: float, rate: float) -> None:
        """One more report; at an earlier time than the newest, what came after it goes."""
        cell, loss = cell_of(share), min(max(loss, -LARGEST), LARGEST)
        if time < self.time:
            kept = bisect_left(self.cells, cell)
            for values in (self.cells, self.lasts, self.lows, self.rates):
                del values[kept:]
        if self.cells and self.cells[-1] == cell:
            self.lasts[-1], self.rates[-1] = loss, rate
            self.lows[-1] = min(self.lows[-1], loss)
        else:
            self.cells.append(cell)
            self.lasts.append(loss)
            self.lows.append(loss)
            self.rates.append(rate)
        self.time = time

    def glimpse(self, index: int) -> Glimpse:
        """What was known at the `index`-th of the cells."""
        lasts = self.lasts[: index + 1]
        last, best = lasts[-1], min(self.lows[: index + 1])
        half = bisect_left(self.cells, HALVES[self.cells[index]] + 1) - 1
        noise = _noise(lasts[-RECENT:])
        spread = max(abs(lasts[0] - best), last - best, 3 * noise, 1e-9 * abs(last), 1e-12)
        highest = max((r for r in self.rates[: index + 1] if not np.isnan(r)), default=0.0)
        rate = self.rates[index] / highest if highest > 0 else np.nan
        return Glimpse(last, best, max(lasts[max(half, 0)] - best, 0.0), spread, noise, rate)

    def columns(self) -> tuple[Floats, Floats]:
        """The glimpse at every cell of the grid, and the best loss after it.

        NaN before the first report, and where nothing follows.
        """
        glimpses = np.array([self.glimpse(index) for index in range(len(self.cells))]).T
        following = np.minimum.accumulate(self.lows[::-1])[::-1]
        after = np.append(following[1:], np.nan)
        indices: Ints = np.searchsorted(self.cells, np.arange(CELLS), "right") - 1
        seen = indices >= 0
        return (
            np.where(seen, glimpses[:, indices], np.nan),
            np.where(seen, after[indices], np.nan),
        )

    def dump(self) -> list[Any]:
        """The curve as JSON data."""
        rates = [None if np.isnan(rate) else rate for rate in self.rates]
        return [self.cells[:], self.lasts[:], self.lows[:], rates, self.time]

    @classmethod
    def load(cls, data: list[Any]) -> "Curve":
        """The curve that `dump` wrote."""
        cells, lasts, lows, rates, time = data
        known = [np.nan if rate is None else float(rate) for rate in rates]
        return cls([*cells], [*lasts], [*lows], known, float(time))


def _noise(losses: list[float]) -> float:
    """The median absolute second difference / 2.45: 0.67 standard deviations of white noise.

    `rules.noise.deviation` has the whole of it. Forecasts were calibrated with this one.
    """
    if len(losses) < 3:
        return 0.0
    triples = zip(losses, losses[1:], losses[2:], strict=False)
    return median(abs(a - 2 * b + c) for a, b, c in triples) / 2.45
