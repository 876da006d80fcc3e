"""How good the forecasts of learning curves are: likelihood, coverage and error, by family.

python -m benchmarks.forecast_quality CURVES_DIR [--quick]
    [--out benchmarks/results/forecast_quality.md]
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.recorded import load
from benchmarks.results import insert
from tune_stoppers.backtest.thinning import PROGRESS
from tune_stoppers.forecast import Forecast, Forecaster
from tune_stoppers.forecast.calibration import persistence
from tune_stoppers.forecast.distribution import Floats
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.report.terminal.tables import markdown, number

PLACES = (0.1, 0.2, 0.4, 0.8)
TRIALS = 60
CUT_AT = 0.2  # where the pruned variant ends the worse half of the trials
OURS, LAST, POWER = "Forecaster", "last value persists", "power law"
FINEST = 0.005  # of the spread of the bests: no density is finer
ELSEWHERE = 0.02  # of each forecast is a Cauchy around the last value: no likelihood is zero


@dataclass(frozen=True)
class Trial:
    """A curve as losses over shares of the horizon."""

    name: str
    shares: Floats
    losses: Floats

    def split(self, place: float) -> tuple[Floats, Floats] | None:
        """Losses up to `place` and after it; None where either is missing or not finite."""
        past = int(self.shares.searchsorted(place + 1e-9))
        before, after = self.losses[:past], self.losses[past:]
        after = after[np.isfinite(after)]
        if not len(before) or not len(after) or not np.isfinite(before[-1]):
            return None
        return before[np.isfinite(before)], after


def trials_of(sweep: Sweep, most: int, seed: int) -> list[Trial]:
    """At most `most` of the trials, in a seeded order."""
    metric, mode = sweep.objective()
    sign = -1.0 if mode == "max" else 1.0
    order = np.random.default_rng([seed, len(sweep)]).permutation(len(sweep))[:most]
    trials = []
    for number_ in order:
        curve = sweep.curves[number_]
        shares = curve.metrics.get(PROGRESS, curve.iterations / sweep.max_t)
        trials.append(Trial(curve.trial_id, np.asarray(shares), sign * curve.metrics[metric]))
    return [trial for trial in trials if np.isfinite(trial.losses).any()]


def power_law(before: Floats, share: float) -> Forecast:
    """Least squares of a + b·t^-c for seven exponents c, the best of them, never upwards."""
    count = len(before)
    times = np.arange(1, count + 1) / count * share
    found, at = (math.inf, 0.0, 0.0), 1.0
    for power in (0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5):
        ahead = times**-power - at
        design = np.column_stack([np.ones(count), ahead])
        (end, slope), *_ = np.linalg.lstsq(design, before, rcond=None)
        end, slope = (end, slope) if slope > 0 else (before[-1], 0.0)
        squares = float(((design @ [end, slope] - before) ** 2).sum())
        found = min(found, (squares, float(end), power))
    end = min(found[1], before[-1])
    width = 0.6 * math.sqrt(found[0] / max(count - 3, 1)) + 0.3 * abs(end - before[-1])
    one = np.ones(1)
    return Forecast(end * one, one, max(width, 1e-9) * one)


def simple(before: Floats, misses: Sequence[float], share: float) -> dict[str, Forecast]:
    """The forecasts to compare with; `misses`: |future best - last value| of earlier trials."""
    own = 0.1 * float(np.ptp(before)) * (1 - share) + 1e-9
    last = persistence(float(before[-1]), own, np.array(misses))
    return {LAST: last, POWER: power_law(before, share) if len(before) > 2 else last}


def scored(forecast: Forecast, future: float, last: float, unit: float) -> dict[str, float]:
    """Log likelihood per `unit`, whether the 50 and 90 % intervals hold, and the error."""
    widths = np.maximum(forecast.widths, FINEST * unit)
    fine = Forecast(forecast.atoms, forecast.weights, widths)
    cauchy = 1 / (math.pi * (1 + ((future - last) / unit) ** 2))
    density = (1 - ELSEWHERE) * fine.density(future) * unit + ELSEWHERE * cauchy
    level = fine.probability_below(future)
    return {
        "loglik": math.log(density),
        "in 50 %": float(0.25 <= level <= 0.75),
        "in 90 %": float(0.05 <= level <= 0.95),
        "error": abs(future - fine.quantile(0.5)) / unit,
    }


def cut(trial: Trial, earlier: Sequence[Trial]) -> bool:
    """Whether a pruner would stop the trial: its best by then is in the worse half."""

    def by_then(other: Trial) -> float:
        seen = other.losses[other.shares <= CUT_AT + 1e-9]
        return float(np.min(seen[np.isfinite(seen)], initial=math.inf))

    others = sorted(by_then(other) for other in earlier)
    return len(others) >= 4 and by_then(trial) > others[len(others) // 2]


def judge(
    sweep: Sweep, trials: Sequence[Trial], pruned: bool, history: Sequence[Sweep] = ()
) -> list[dict[str, object]]:
    """Forecast each trial at `PLACES` from those before it; a row per forecast."""
    bests = [float(np.nanmin(np.where(np.isfinite(t.losses), t.losses, np.nan))) for t in trials]
    unit = float(np.median(bests) - min(bests)) or float(np.std(bests)) + 1e-12
    forecaster = Forecaster(1.0, history)
    misses: dict[float, list[float]] = {place: [] for place in PLACES}
    rows: list[dict[str, object]] = []
    for serial, trial in enumerate(trials):
        left = list(PLACES)
        for share, loss in zip(trial.shares, trial.losses, strict=True):
            while left and share > left[0] + 1e-9:
                place = left.pop(0)
                parts = trial.split(place)
                if parts is None:
                    continue
                before, after = parts
                ours = forecaster.forecast(trial.name)
                known = {OURS: ours, **simple(before, misses[place], place)}
                future, last = float(after.min()), float(before[-1])
                for name, forecast in known.items():
                    row = {"sweep": sweep.name, "at": place, "forecaster": name, "trial": serial}
                    row |= {"used": float(ours.calibrated)}
                    rows.append(row | scored(forecast, future, last, unit))
            forecaster.observe(trial.name, share, loss)
        stopped = pruned and cut(trial, trials[:serial])
        if stopped:
            forecaster.forget(trial.name)
            for share, loss in zip(trial.shares, trial.losses, strict=True):
                if share <= CUT_AT + 1e-9:
                    forecaster.observe(trial.name, share, loss)
        forecaster.ended(trial.name, whole=not stopped)
        for place in PLACES:
            parts = None if stopped else trial.split(place)
            if parts is not None:
                misses[place].append(abs(float(parts[1].min()) - float(parts[0][-1])))
    return rows


def table(rows: list[dict[str, object]], families: dict[str, str]) -> pd.DataFrame:
    """Means per sweep, then per family; of the errors, medians per sweep."""
    frame = pd.DataFrame(rows)
    frame["family"] = frame["sweep"].map(families)
    keys = ["family", "sweep", "forecaster", "at"]
    means = frame.groupby(keys, sort=False)[["loglik", "in 50 %", "in 90 %", "used"]].mean()
    means["error"] = frame.groupby(keys, sort=False)["error"].median()
    return means.groupby(["family", "forecaster", "at"], sort=False).mean()


def shown(found: pd.DataFrame) -> str:
    """A line per family and forecaster; in each cell the four places of training."""
    lines = []
    for key, part in found.groupby(level=["family", "forecaster"], sort=False):
        part = part.sort_index(level="at")
        cells = [" / ".join(number(v, 2) for v in part["loglik"])]
        cells += [" / ".join(f"{v:.0%}" for v in part[name]) for name in ("in 50 %", "in 90 %")]
        cells.append(" / ".join(number(v, 3) for v in part["error"]))
        cells.append(" / ".join(f"{v:.0%}" for v in part["used"]) if key[1] == OURS else "")
        lines.append([*map(str, key), *cells])
    header = ["family", "forecaster", "log likelihood", "in 50 %", "in 90 %", "median error"]
    return markdown([*header, "used"], lines)


def measure(folder: Path, quick: bool, note: Callable[[str], None]) -> list[str]:
    """The text of the section, paragraph by paragraph."""
    sweeps, families, _ = load(folder, quick)
    sweeps = [sweep for sweep in sweeps if families[sweep.name] != sweep.name]
    text = [
        f"At most {20 if quick else TRIALS} trials a sweep in a seeded order; each is forecast at "
        "10 / 20 / 40 / 80 % of training from those before it, as they would have been seen. "
        "What is forecast is the best loss after that point. Units: the median best of the "
        "sweep's trials less the lowest. Log likelihood: natural logarithm of the density, higher "
        f"is better; no density is finer than {FINEST:g} units, and {ELSEWHERE:.0%} of each "
        "forecast is a wide Cauchy. Used: the share of the forecasts that say they are calibrated.",
    ]
    variants = [("Every earlier trial ran to its end", False)]
    variants.append((f"The worse half of the earlier trials was stopped at {CUT_AT:.0%}", True))
    for title, pruned in variants:
        rows: list[dict[str, object]] = []
        for sweep in sweeps:
            began = time.monotonic()
            trials = trials_of(sweep, 20 if quick else TRIALS, seed=0)
            rows += judge(sweep, trials, pruned)
            note(f"{sweep.name}: {time.monotonic() - began:.0f} s")
        text += [f"## {title}", shown(table(rows, families))]
    return text


def main(given: list[str] | None = None) -> int:
    """Run the benchmark. 0: done; 2: a user's mistake."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forecast_quality")
    parser.add_argument("curves", type=Path, help="folder of recorded sweeps, Parquet files")
    parser.add_argument("--quick", action="store_true", help="20 trials, one task a family")
    parser.add_argument("--out", type=Path, help="Markdown file; default: standard output")
    args = parser.parse_args(given)
    if not args.curves.is_dir():
        print(f"error: there is no folder {args.curves}.", file=sys.stderr)
        return 2
    options = (" --quick" if args.quick else "") + (f" --out {args.out}" if args.out else "")
    text = measure(args.curves, args.quick, lambda line: print(line, file=sys.stderr))
    command = f"`python -m benchmarks.forecast_quality CURVES_DIR{options}`"
    head = ["# Forecast quality", f"{command}, {time.strftime('%Y-%m-%d')}."]
    section = "\n\n".join([*head, *text])
    if args.out is None:
        print(section)
    else:
        insert(args.out, "forecast_quality", section)
    return 0


if __name__ == "__main__":
    sys.exit(main())
