"""`Forecaster`: from the reports of a sweep, the distribution of a trial's future best."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from tune_stoppers.core import require_number
from tune_stoppers.forecast.calibration import (
    NONE,
    PRIOR_TRIALS,
    RESOLUTION,
    Calibration,
    calibrate,
    persistence,
    recalibrated,
    resolution,
)
from tune_stoppers.forecast.curve import CELLS, EDGES, Curve
from tune_stoppers.forecast.distribution import Floats, Forecast, mixed
from tune_stoppers.forecast.ended_trials import Past, Transfer
from tune_stoppers.forecast.history import histories
from tune_stoppers.forecast.prior_curves import from_bank

TOGETHER = 5  # neighbouring cells with one calibration


class Forecaster:
    """Learns from the sweep's own trials how much a trial improves from where it is.

    The future best of a trial at time t is the best loss in (t, `max_t`]; lower is better. Its
    distribution is a mixture: what the trials that have ended did from the same progress on,
    carried over in two ways (`past`), and a prior that counts as two trials: the best so far
    persists, or continues like one of a bank of shapes (`bank`), or as trials of earlier sweeps
    did (`history`). How the two ways are weighted, and the levels of the mixture, are calibrated
    on the sweep's own trials, each forecast from the others; `Forecast.calibrated` says whether
    that beat "the last value persists" (`calibration`).

    A trial that ended before `max_t` and is not `whole` was cut short, and is no evidence: to
    complete it by a draw of its own forecast was measured, and made later forecasts much worse
    where losses have outliers and nowhere much better. A loss that is not finite counts as the
    trial's worst so far. Deterministic; memory is bounded by some 75 entries a trial and about
    256 ended trials. `history`: recorded sweeps (`Sweep`), judged by their own metric.
    """

    def __init__(self, max_t: float, history: Iterable[Any] = ()) -> None:
        require_number("max_t", max_t, above=0)
        self.max_t = max_t
        self.past = Past()
        self._history = histories(history)
        self._live: dict[str, Curve] = {}
        self._calibrations: dict[int, Calibration] = {}

    def observe(self, trial_id: str, t: float, loss: float, lr: float | None = None) -> None:
        """A report: the loss at time `t`, and the learning rate where it is known.

        At the time last seen it changes nothing; at an earlier one the trial went back.
        """
        curve = self._live.get(trial_id)
        if curve is None:
            ended = self.past.trials.get(trial_id)
            curve = Curve() if ended is None else ended.curve
            if t == curve.time:
                return
            if ended is not None:
                self._forget_ended(trial_id)
            self._live[trial_id] = curve
        if t == curve.time:
            return
        if not np.isfinite(loss):
            if not curve.lasts:
                return
            loss = max(curve.lasts)
        curve.add(t, t / self.max_t, loss, np.nan if lr is None else lr)

    def ended(self, trial_id: str, whole: bool | None = None) -> None:
        """The trial is over; `whole`: it was not cut short (None: if it reached `max_t`)."""
        curve = self._live.pop(trial_id, None)
        if curve is None or not curve.cells:
            return
        if whole is None:
            whole = curve.time >= self.max_t
        if whole and self.past.add(trial_id, curve):
            self._calibrations = {}

    def forget(self, trial_id: str) -> None:
        """Drop all that is known of the trial."""
        self._live.pop(trial_id, None)
        if trial_id in self.past.trials:
            self._forget_ended(trial_id)

    def forecast(self, trial_id: str) -> Forecast:
        """The distribution of the best loss after the trial's newest report.

        KeyError for a trial that has not reported a finite loss, or that has ended.
        """
        curve = self._live.get(trial_id)
        if curve is None or not curve.cells:
            raise KeyError(f"trial {trial_id!r} is not running, or has no finite loss yet.")
        return self._forecast(curve)

    def skill(self, trial_id: str) -> tuple[float, int]:
        """Nats gained on "the last value persists" where the trial is, and on how many trials."""
        calibration = self._calibration(self._live[trial_id].cells[-1])
        return calibration.skill, calibration.tested

    def dump(self) -> dict[str, Any]:
        """What was observed, as JSON data (floats that JSON lacks may be in it)."""
        live = {trial_id: curve.dump() for trial_id, curve in self._live.items()}
        return {"live": live, "past": self.past.dump()}

    @classmethod
    def load(cls, max_t: float, data: dict[str, Any], history: Iterable[Any] = ()) -> "Forecaster":
        """The forecaster that `dump` wrote, of the same `max_t` and `history`."""
        forecaster = cls(max_t, history)
        forecaster._live = {trial: Curve.load(curve) for trial, curve in data["live"].items()}
        forecaster.past = Past.load(data["past"])
        return forecaster

    def _forget_ended(self, trial_id: str) -> None:
        self.past.drop(trial_id)
        self._calibrations = {}

    def _calibration(self, cell: int) -> Calibration:
        group = min(cell // TOGETHER * TOGETHER + TOGETHER - 1, CELLS - 2)
        if group not in self._calibrations:
            self._calibrations[group] = calibrate(self.past, group, EDGES[group])
        return self._calibrations[group]

    def _forecast(self, curve: Curve) -> Forecast:
        cell, index = curve.cells[-1], len(curve.cells) - 1
        seen = curve.glimpse(index)
        panel = self.past.panel(cell)
        own = max(0.1 * seen.spread * (1 - EDGES[cell]) + seen.noise, 1e-12)
        misses = np.abs(panel.future - panel.seen.best)
        prior = mixed(
            [persistence(seen.best, own, misses), from_bank(curve, index, seen)],
            np.array([0.5, 0.5]),
        )
        if self._history:
            prior = self._history.joined(prior, cell, seen, panel)
        if len(panel) < 2:
            return prior
        calibration = self._calibration(cell) if cell < CELLS - 1 else NONE
        query = seen.query()
        drop = panel.ranks_in("drop", query.drop)
        transfers = [
            panel.shift(query, (panel.ranks_in("best", query.best), drop), alone=False),
            panel.scale(query, (panel.ranks_in("last", query.last), drop), alone=False),
        ]
        trust = [float(t.effective[0] / (t.effective[0] + PRIOR_TRIALS)) for t in transfers]
        shares = calibration.shares * trust
        parts = [prior, *map(_alone, transfers)]
        forecast = mixed(parts, np.array([1 - shares.sum(), *shares]))
        finest = max(RESOLUTION * resolution(panel), 1e-9 * seen.spread)
        widths = np.maximum(forecast.widths, finest)
        forecast = Forecast(forecast.atoms, forecast.weights, widths)
        forecast = recalibrated(forecast, calibration.density)
        return Forecast(forecast.atoms, forecast.weights, widths, calibration.holds)


def _alone(transfer: Transfer) -> Forecast:
    """The transfer of the only query."""
    atoms: Floats = transfer.atoms[0]
    return Forecast(atoms, transfer.weights[0], np.full(len(atoms), transfer.widths[0]))
