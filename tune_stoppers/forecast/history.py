"""Earlier sweeps as part of the prior."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from tune_stoppers.forecast.curve import Curve, Glimpse
from tune_stoppers.forecast.distribution import Forecast, mixed
from tune_stoppers.forecast.ended_trials import CAPACITY, Panel, Past

SHARE = 0.5  # of the prior that earlier sweeps have, together


class History:
    """Earlier sweeps: each says, by "scale", how trials of the same ranks continued in it.

    Ranks are each in its own sweep, and improvements in units of the recent drop: nothing is
    assumed of the level or the unit of the losses.
    """

    def __init__(self, pasts: list[Past]) -> None:
        self.pasts = pasts

    def __bool__(self) -> bool:
        return bool(self.pasts)

    def joined(self, prior: Forecast, cell: int, seen: Glimpse, own: Panel) -> Forecast:
        """`prior` with its share for earlier sweeps, each of them counting the same."""
        panels = [panel for past in self.pasts if len(panel := past.panel(cell)) >= 2]
        if not panels:
            return prior
        query = seen.query()
        middle = np.full((1, 1), 0.5)
        ranks = middle, middle
        if len(own) >= 2:
            ranks = own.ranks_in("last", query.last), own.ranks_in("drop", query.drop)
        parts = [prior]
        for panel in panels:
            transfer = panel.scale(query, ranks, alone=False)
            atoms, width = transfer.atoms[0], max(float(transfer.widths[0]), 1e-9 * seen.spread)
            parts.append(Forecast(atoms, transfer.weights[0], np.full(len(atoms), width)))
        return mixed(parts, np.array([1 - SHARE, *[SHARE / len(panels)] * len(panels)]))


def histories(sweeps: Iterable[Any]) -> History:
    """What `Sweep` objects have recorded; together they are evenly thinned to `CAPACITY` trials.

    TypeError for what is no sweep; ValueError for one that does not say what it optimises.
    """
    given = list(sweeps)
    pasts = []
    for sweep in given:
        if not all(hasattr(sweep, name) for name in ("objective", "curves", "max_t")):
            raise TypeError(f"history takes recorded sweeps, Sweep objects, got {sweep!r}.")
        metric, mode = sweep.objective()
        sign = -1.0 if mode == "max" else 1.0
        past = Past()
        stride = max(len(sweep.curves) * len(given) / CAPACITY, 1.0)
        for number in np.arange(0, len(sweep.curves), stride).astype(int):
            recorded = sweep.curves[number]
            curve = Curve()
            for t, value in zip(recorded.iterations, recorded.metrics[metric], strict=True):
                if np.isfinite(value):
                    curve.add(float(t), float(t / sweep.max_t), float(sign * value), np.nan)
            if curve.cells:
                past.add(recorded.trial_id, curve)
        pasts.append(past)
    return History(pasts)
