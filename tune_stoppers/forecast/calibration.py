"""The forecaster's account of itself: each ended trial forecast from the others."""

from statistics import median_high
from typing import NamedTuple

import numpy as np

from tune_stoppers.forecast.distribution import Floats, Forecast, densities, levels, mixed
from tune_stoppers.forecast.ended_trials import Panel, Past, Transfer
from tune_stoppers.forecast.prior_curves import from_bank

EVIDENCE = 4  # ended trials without which nothing is calibrated
TESTED = 32  # newest ended trials that are forecast from the others
PRIOR_TRIALS = 2.0  # ended trials that the prior counts as
FORGETFUL = 0.5  # power of the likelihood that weighs the two transfers
RESOLUTION = 0.005  # of the spread of the trials' future bests: no forecast is finer
DOUBT = 20.0  # trials that an even calibration counts as
LEVELS = np.linspace(0, 1, 41)
BLUR = 0.15  # of the levels at which the trials came out
OUTSIDE = 0.006  # density, per spread, of whatever no forecast thought of


class Calibration(NamedTuple):
    """What the sweep's own trials say of the forecasts at one cell."""

    shares: Floats  # of "shift" and "scale"
    density: Floats  # of the levels at which the trials came out, at `LEVELS`
    skill: float  # mean gain in log likelihood over "the last value persists", nats
    tested: int

    @property
    def holds(self) -> bool:
        """Whether decisions may rest on the forecasts."""
        return self.tested >= EVIDENCE and self.skill > 0


NONE = Calibration(np.array([0.5, 0.5]), np.ones(len(LEVELS)), 0.0, 0)


def resolution(panel: Panel) -> float:
    """The spread of the future bests, from the median to the lowest; 0 where there is none."""
    if len(panel) < 2:
        return 0.0
    return float(np.median(panel.future) - panel.future.min())


def recalibrated(forecast: Forecast, density: Floats) -> Forecast:
    """`forecast` with each atom weighted by how often trials came out at its level."""
    order = forecast.atoms.argsort()
    sorted_weights = forecast.weights[order]
    at = sorted_weights.cumsum() - sorted_weights / 2
    weights = np.empty_like(sorted_weights)
    weights[order] = sorted_weights * np.interp(at, LEVELS, density)
    return Forecast(forecast.atoms, weights / weights.sum(), forecast.widths)


def persistence(anchor: float, own: float, misses: Floats) -> Forecast:
    """A value that stays: spread like the `misses` of others, with two more of size `own`."""
    width = own
    if len(misses):
        count, typical = len(misses), max(median_high(misses.tolist()), 1e-12)
        width = np.exp((2 * np.log(own) + count * np.log(typical)) / (2 + count))
    one = np.ones(1)
    return Forecast(anchor * one, one, max(width, 1e-12) / 1.1 * one)  # half lie within `width`


def calibrate(past: Past, cell: int, share: float) -> Calibration:
    """Forecast each of the newest ended trials at `cell` from the others, and take stock.

    `share`: of the horizon, at the cell.
    """
    panel = past.panel(cell, settled=True)
    tested = np.arange(len(panel))[-TESTED:]
    if len(tested) < 2:
        return NONE
    unit = max(resolution(panel), 1e-12)
    finest = RESOLUTION * unit
    query = panel.seen.queries()
    drop = panel.ranks_in("drop", query.drop)
    transfers = [
        panel.shift(query, (panel.ranks_in("best", query.best), drop), alone=True),
        panel.scale(query, (panel.ranks_in("last", query.last), drop), alone=True),
    ]
    misses_best = np.abs(panel.future - panel.seen.best)
    misses_last = np.abs(panel.future - panel.seen.last)
    scores, outcomes = [], []
    for row in tested:
        future, others = float(panel.future[row]), np.arange(len(panel)) != row
        seen = panel.seen.of(row)
        own = max(0.1 * seen.spread * (1 - share) + seen.noise, 1e-12)
        curve = past.trials[panel.ids[row]].curve
        index = int(np.searchsorted(curve.cells, cell, "right")) - 1
        prior = mixed(
            [persistence(seen.best, own, misses_best[others]), from_bank(curve, index, seen)],
            np.array([0.5, 0.5]),
        )
        last = persistence(seen.last, own, misses_last[others])
        pairs = [_at(future, prior, transfer, row, finest) for transfer in transfers]
        baseline = densities(future, last.atoms, np.maximum(last.widths, finest))[0]
        scores.append([*(density for density, _ in pairs), baseline])
        outcomes.append([level for _, level in pairs])
    logs = np.log(0.98 * np.array(scores) * unit + OUTSIDE)
    powers = FORGETFUL * logs[:, :2].sum(0)
    shares = np.exp(powers - powers.max())
    shares /= shares.sum()
    combined = np.log(0.98 * (np.array(scores)[:, :2] @ shares) * unit + OUTSIDE)
    skill = float((combined - logs[:, 2]).mean())
    return Calibration(shares, _blurred(np.array(outcomes) @ shares), skill, len(tested))


def _at(
    future: float, prior: Forecast, transfer: Transfer, row: int, finest: float
) -> tuple[float, float]:
    """The density and the level at `future` of a transfer with its prior."""
    trust = transfer.effective[row] / (transfer.effective[row] + PRIOR_TRIALS)
    prior_widths = np.maximum(prior.widths, finest)
    width = np.maximum(transfer.widths[row : row + 1], finest)
    atoms, weights = transfer.atoms[row], transfer.weights[row]
    density = trust * weights @ densities(future, atoms, width)
    density += (1 - trust) * prior.weights @ densities(future, prior.atoms, prior_widths)
    level = trust * weights @ levels(future, atoms, width)
    level += (1 - trust) * prior.weights @ levels(future, prior.atoms, prior_widths)
    return float(density), float(level)


def _blurred(outcomes: Floats) -> Floats:
    """The density of the levels, reflected at 0 and 1, shrunk towards an even one."""
    away = LEVELS[:, None] - np.concatenate([outcomes, -outcomes, 2 - outcomes])
    kernel = np.exp(-0.5 * (away / BLUR) ** 2) / (BLUR * np.sqrt(2 * np.pi))
    return np.asarray((DOUBT + kernel.sum(1)) / (DOUBT + len(outcomes)))
