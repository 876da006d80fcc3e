"""Whether earlier sweeps help the two stoppers that forecast: each LoRA sweep, the others known.

python -m benchmarks.history_forecast CURVES_DIR [--pools 16 40] [--draws 2]
    [--out benchmarks/results/history_forecast.md]

`ForecastStopper` with no history, with one in the prior of its forecasts (its `history`), and with
forecasts that decide by the history until four trials of this sweep have come to their end. And
for `DiminishingReturnsStopper`: the improvement that twice as many trials bring, foreseen by the
trials so far as it does, by those of the other sweeps, and by the mean of the two.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.history_gain import without
from benchmarks.pools import Task, draw, load
from benchmarks.results import insert
from benchmarks.small_tables import cell, mean_se
from tune_stoppers import RuleStopper
from tune_stoppers.backtest.replay import replay
from tune_stoppers.backtest.score import area, regret_curve
from tune_stoppers.forecast import Forecast as Distribution
from tune_stoppers.forecast import Forecaster
from tune_stoppers.forecast.distribution import Floats
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.report.terminal.tables import markdown
from tune_stoppers.rules.sweep.diminishing_returns import thinned_gain
from tune_stoppers.rules.sweep.forecast import Forecast, ForecastRecord

NONE, COLD, PRIOR, EARLY = (
    "no stopping",
    "no history",
    "history in the prior",
    "history decides until four have ended",
)
NEEDED = 4
RUN: dict[str, Any] = {"workers": 4, "order": "recorded", "cost": "seconds"}
SO_FAR, DRAWS = (8, 16, 30), 400  # trials; and how many such sets are drawn of each sweep
OWN, OTHERS, BOTH = "this sweep", "the other sweeps", "the mean of the two"


class EarlyForecaster(Forecaster):
    """Takes the history's word until four trials have come to their end."""

    def forecast(self, trial_id: str) -> Distribution:
        found = super().forecast(trial_id)
        if len(self.past.trials) >= NEEDED:
            return found
        return Distribution(found.atoms, found.weights, found.widths, True)


@dataclass(frozen=True, kw_only=True)
class EarlyForecast(Forecast):
    """The rule with such forecasts."""

    def init(self) -> ForecastRecord:
        return ForecastRecord(EarlyForecaster(self.max_t, self.history))


def stopped(tasks: Sequence[Task], pools: Sequence[int], draws: int) -> pd.DataFrame:
    """A row for each pool and rule."""
    rows: list[dict[str, Any]] = []
    for task in tasks:
        metric, mode = task.sweep.objective()
        others = [t.sweep for t in tasks if t is not task]
        for size in pools:
            for number in range(draws):
                pool = draw(task, size, number)
                mine = [curve.config for curve in pool]
                known = tuple(without(sweep, mine) for sweep in others)
                rules = {
                    NONE: None,
                    COLD: Forecast(max_t=pool.max_t),
                    PRIOR: Forecast(max_t=pool.max_t, history=known),
                    EARLY: EarlyForecast(max_t=pool.max_t, history=known),
                }
                whole = 0.0
                for name, rule in rules.items():
                    stopper = None if rule is None else RuleStopper(rule, metric, mode)
                    result = replay(pool, None, stopper, seed=number, **RUN)
                    whole = whole or result.seconds
                    curve = regret_curve(result.incumbent, result.regret_of)
                    row = {"pool": size, "history": name, "draw": number}
                    row |= {"area": area(curve, whole), "final": result.regret}
                    rows.append(row | {"savings": result.savings})
    return pd.DataFrame(rows)


def foreseen(tasks: Sequence[Task]) -> pd.DataFrame:
    """How far off each way to foresee the improvement of doubling a sweep is, in its own units.

    The unit is the distance between the median trial so far and the best so far.
    """
    finals = [bests(task.sweep) for task in tasks]
    rng = np.random.default_rng(0)
    rows = []
    for count in SO_FAR:
        usual = [np.mean([gains(f, count, rng)[0] for _ in range(DRAWS)]) for f in finals]
        for index, own in enumerate(finals):
            elsewhere = float(np.mean([u for place, u in enumerate(usual) if place != index]))
            for _ in range(DRAWS):
                came, expected = gains(own, count, rng)
                for name, said in (
                    (OWN, expected),
                    (OTHERS, elsewhere),
                    (BOTH, (expected + elsewhere) / 2),
                ):
                    rows.append({"trials": count, "by": name, "error": (said - came) ** 2})
    found = pd.DataFrame(rows).groupby(["trials", "by"], sort=False)["error"].mean()
    errors: pd.DataFrame = found.pow(0.5).unstack()
    return errors


def bests(sweep: Sweep) -> Floats:
    """The best loss of each trial."""
    metric, mode = sweep.objective()
    return np.array([curve.losses(metric, mode).min() for curve in sweep])


def gains(finals: Floats, count: int, rng: np.random.Generator) -> tuple[float, float]:
    """By how much `count` more trials bettered the best of so many, and what was foreseen."""
    drawn = finals[rng.permutation(len(finals))[: 2 * count]]
    first = np.sort(drawn[:count])
    unit = float(np.median(first) - first[0]) or 1.0
    better = first[: max(count // 2, 2)].tolist()
    came = max(first[0] - drawn[count:].min(), 0.0)
    return float(came / unit), thinned_gain(better, 0.5) / unit


def section(runs: pd.DataFrame, errors: pd.DataFrame) -> str:
    """Both tables."""
    lines = []
    for (size, name), of_rule in runs.groupby(["pool", "history"], sort=False):
        draws = of_rule.groupby("draw")[["area", "final", "savings"]].mean()
        shown = [cell(mean_se(draws[column])) for column in draws]
        lines.append([str(size), str(name), *shown])
    first = markdown(["pool", "ForecastStopper with", "area", "regret at the end", "saved"], lines)
    rows = [
        [str(count), *(f"{row[name]:.2f}" for name in (OWN, OTHERS, BOTH))]
        for count, row in errors.iterrows()
    ]
    second = markdown(["trials so far", OWN, OTHERS, BOTH], rows)
    return (
        f"{first}\n\nThe improvement that twice as many trials bring, foreseen by …: root mean "
        "square error, in units of the distance between the median and the best trial so far.\n\n"
        f"{second}"
    )


def main(given: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history_forecast")
    parser.add_argument("curves", type=Path, help="folder of recorded sweeps, Parquet files")
    parser.add_argument("--pools", nargs="+", type=int, default=[16, 40])
    parser.add_argument("--draws", type=int, default=2, help="of each pool")
    parser.add_argument("--out", type=Path, help="Markdown file; default: standard output")
    args = parser.parse_args(given)
    tasks = load(args.curves, ("lora",))
    text = section(stopped(tasks, args.pools, args.draws), foreseen(tasks))
    command = f"python -m benchmarks.history_forecast CURVES_DIR --draws {args.draws}"
    if args.out is None:
        print(text)
    else:
        head = "# Whether a history helps the stoppers that forecast\n\n"
        told = (
            "Three LoRA sweeps, each with the other two as history; 4 workers. ×100; ± over draws."
        )
        insert(args.out, "history_forecast", f"{head}`{command}`: {told}\n\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
