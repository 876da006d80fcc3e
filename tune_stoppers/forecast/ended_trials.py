"""Trials that ran to their end, as evidence for one that has not.

What an ended trial says of a trial at the same progress is how much it still improved from there.
Two ways carry that over. "shift", from the best so far: future best = b − (bⱼ − Fⱼ). "scale",
from the last value y, in units of the recent drop d: future best = y − (yⱼ − Fⱼ)·d / dⱼ. Ended
trials are weighted by how near they are: a Gaussian kernel in the rank of the value, the rank of
the drop and, where it is reported, the learning rate as a share of its maximum.
"""

from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from tune_stoppers.forecast.curve import Curve, Glimpses
from tune_stoppers.forecast.distribution import Floats

CAPACITY = 256  # ended trials kept, the newest
GROWTH = 1.25  # what is derived from the ended trials is renewed when they are so many times more
BANDWIDTH = 0.25  # of the kernel, in ranks from 0 to 1 and in shares of the learning rate
SMOOTHING = 0.5  # kernel widths of the atoms, in spreads of the atoms
LEAST_DROP = 0.02  # of what a trial has moved: a smaller drop is no unit


class Transfer(NamedTuple):
    """The atoms for each of several queries, a row each; `effective`: how many trials they are."""

    atoms: Floats
    weights: Floats
    widths: Floats  # one a query
    effective: Floats  # one a query


class Panel(NamedTuple):
    """Ended trials at one cell, one entry each in every column; only those with a future."""

    ids: tuple[str, ...]
    seen: Glimpses
    future: Floats  # best loss after the cell

    def __len__(self) -> int:
        return len(self.ids)

    def ranks_in(self, name: str, values: Floats) -> Floats:
        """The ranks of `values` in the column, from 0 to 1, ties in the middle."""
        column = np.sort(getattr(self.seen, name))
        left, right = column.searchsorted(values), column.searchsorted(values, "right")
        return np.asarray((left + right + 0.5) / (2 * len(column) + 1))

    def shift(self, query: Glimpses, ranks: tuple[Floats, Floats], alone: bool) -> Transfer:
        """What is expected if the best moves by as much; `ranks`: ranks of best and of drop.

        The query's columns are shaped (n, 1). `alone`: the queries are the panel's own trials,
        each without itself.
        """
        weights = self._weights("best", query, ranks, alone)
        return _smoothed(query.best - (self.seen.best - self.future), weights, query.noise)

    def scale(self, query: Glimpses, ranks: tuple[Floats, Floats], alone: bool) -> Transfer:
        """What is expected if the last value moves by as many drops; otherwise as `shift`."""
        weights = self._weights("last", query, ranks, alone)
        unit = np.maximum(self.seen.drop, LEAST_DROP * self.seen.spread)
        own = np.maximum(query.drop, LEAST_DROP * query.spread)
        atoms = query.last - (self.seen.last - self.future) * (own / unit)
        return _smoothed(atoms, weights, query.noise)

    def _weights(
        self, name: str, query: Glimpses, ranks: tuple[Floats, Floats], alone: bool
    ) -> Floats:
        value, drop = ranks
        far = (self.ranks_in(name, getattr(self.seen, name)) - value) ** 2
        far = far + (self.ranks_in("drop", self.seen.drop) - drop) ** 2
        far = far + np.nan_to_num((self.seen.rate - query.rate) ** 2)
        if alone:
            far = far + np.where(np.eye(len(far), len(self), dtype=bool), np.inf, 0)
        weights = np.exp(-0.5 * (far - far.min(1, keepdims=True)) / BANDWIDTH**2)
        return np.asarray(weights / weights.sum(1, keepdims=True))


def _smoothed(atoms: Floats, weights: Floats, noise: Floats) -> Transfer:
    effective = 1 / (weights**2).sum(1)
    middle = _median(atoms, weights)
    away = _median(np.abs(atoms - middle[:, None]), weights) / 0.6745
    width = SMOOTHING * away * effective**-0.2 + 0.3 * np.ravel(noise)
    return Transfer(atoms, weights, width, effective)


def _median(values: Floats, weights: Floats) -> Floats:
    """The weighted median of each row."""
    rows = np.arange(len(values))
    order = values.argsort(1)
    reached = weights[rows[:, None], order].cumsum(1)
    middle = np.minimum((reached < 0.5).sum(1), values.shape[1] - 1)
    return np.asarray(values[rows, order[rows, middle]])


class Ended(NamedTuple):
    """An ended trial: what the forecasts are made from, and what that was made from."""

    serial: int
    curve: Curve
    seen: Floats  # the columns of `Glimpses`, by cell
    future: Floats


class Past:
    """The ended trials of one sweep, the newest `CAPACITY` or a little more."""

    def __init__(self) -> None:
        self.trials: dict[str, Ended] = {}  # oldest first
        self.serial = 0  # how many have ever been added
        self.milestone = 0  # the serial at which derived things were last renewed
        self._stacked: tuple[Floats, Floats] | None = None
        self._panels: dict[tuple[int, bool], Panel] = {}

    def add(self, trial_id: str, curve: Curve) -> bool:
        """Take a trial in; whether what is derived from the past is to be renewed."""
        self.serial += 1
        self.trials.pop(trial_id, None)
        self.trials[trial_id] = Ended(self.serial, curve, *curve.columns())
        renew = self.serial >= max(self.milestone + 1, GROWTH * self.milestone)
        if renew:
            self.milestone = self.serial
            for old in list(islice(self.trials, max(len(self.trials) - CAPACITY, 0))):
                del self.trials[old]
        self._changed()
        return renew

    def drop(self, trial_id: str) -> None:
        """Leave a trial out."""
        self.trials.pop(trial_id, None)
        self._changed()

    def _changed(self) -> None:
        self._stacked = None
        self._panels = {}

    def panel(self, cell: int, settled: bool = False) -> Panel:
        """The trials at `cell`; `settled`: those before the last milestone."""
        key = cell, settled
        if key not in self._panels:
            self._panels[key] = self._panel(cell, settled)
        return self._panels[key]

    def _panel(self, cell: int, settled: bool) -> Panel:
        trials = list(self.trials.items())
        if not trials:
            empty = np.empty(0)
            return Panel((), Glimpses(*[empty] * 6), empty)
        if self._stacked is None:
            self._stacked = (
                np.stack([ended.seen for _, ended in trials]),
                np.stack([ended.future for _, ended in trials]),
            )
        seen, future = self._stacked[0][:, :, cell], self._stacked[1][:, cell]
        last = self.milestone if settled else self.serial
        early = np.array([ended.serial <= last for _, ended in trials])
        rows = np.flatnonzero(np.isfinite(future) & early)
        return Panel(
            tuple(trials[row][0] for row in rows),
            Glimpses(*seen[rows].T),
            future[rows],
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.dump()

    def __setstate__(self, data: dict[str, Any]) -> None:
        self.__dict__ = self.load(data).__dict__

    def dump(self) -> dict[str, Any]:
        """The past as JSON data."""
        trials = [
            [trial_id, ended.serial, ended.curve.dump()] for trial_id, ended in self.trials.items()
        ]
        return {"trials": trials, "serial": self.serial, "milestone": self.milestone}

    @classmethod
    def load(cls, data: dict[str, Any]) -> "Past":
        """The past that `dump` wrote."""
        past = cls()
        past.serial, past.milestone = data["serial"], data["milestone"]
        for trial_id, serial, curve_data in data["trials"]:
            curve = Curve.load(curve_data)
            past.trials[trial_id] = Ended(serial, curve, *curve.columns())
        return past
