"""When `DiminishingReturnsStopper` ends a sweep, and what going on would have bought.

python -m benchmarks.when_to_stop CURVES_DIR [--quick]

Each sweep is replayed with and without the stopper, under no scheduler and under ours, on 8
workers until its pool is dry or every worker has had the time of 16 full trainings. The stopper's
defaults were chosen on `taskset`. What the stopper said was left, what as long again bought and
what all the rest bought are in units of the noise that it saw in the metric.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.contestants import bound_asha
from benchmarks.recorded import horizon, load
from tune_stoppers.backtest.replay import ReplayResult, replay
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.report.terminal.tables import markdown, number
from tune_stoppers.rules.sweep.diminishing_returns import DiminishingReturns
from tune_stoppers.tune.stoppers.named import DiminishingReturnsStopper

WORKERS, TRAININGS, ORDERINGS = 8, 16.0, 2
CHOSEN_ON = "taskset"
NONE, OURS = "none", "BoundASHAScheduler"
REGRETS_LATER = ("regret_again", "regret_all")
HEADER = (
    "family",
    "scheduler",
    "ended",
    "at (trainings)",
    "compute saved",
    "regret",
    "… as long again",
    "… with all",
    "said to be left (noise)",
    "as long again bought",
    "all bought",
    "as long again > noise",
    "all > noise",
)


def stopper_for(sweep: Sweep) -> DiminishingReturnsStopper:
    """The stopper with its defaults, told of the sweep's horizon."""
    return DiminishingReturnsStopper(*sweep.objective(), **horizon(sweep))


def best_by(result: ReplayResult, when: float) -> float:
    """The best value that was known at a time; NaN before the first finite one."""
    known = result.incumbent
    values = known["value"][known["time"] <= when]
    return float(values.iloc[-1]) if len(values) else math.nan


def said(result: ReplayResult) -> tuple[float, float]:
    """What the stopper expected to be left, and the noise it saw, in the metric's unit; or NaN."""
    mine = DiminishingReturnsStopper.__name__
    reasons = result.journal["reason"]
    reason = next((text for text in reasons if text.startswith(mine)), None)
    if reason is None:
        return math.nan, math.nan
    left = reason.partition(": ")[2].split()[0]
    noise = reason.partition("noise of an evaluation is ")[2].split(";")[0]
    return float(left), float(noise)


def judge(sweep: Sweep, scheduler: str, seed: int) -> dict[str, Any]:
    """One replay to where the stopper ends it, beside the same one to the end."""
    setting: dict[str, Any] = {
        "workers": WORKERS,
        "seed": seed,
        "budget": TRAININGS * sweep.max_t,
    }
    rule = bound_asha(sweep) if scheduler == OURS else None
    whole = replay(sweep, rule, **setting)
    short = replay(sweep, rule, stopper_for(sweep), **setting)
    left, noise = said(short)
    ended = not math.isnan(left)
    end = short.seconds if ended else whole.seconds
    at_end, after, last = best_by(whole, end), best_by(whole, 2 * end), whole.best
    found = {
        "ended": ended,
        "at": end / sweep.max_t,
        "of": whole.seconds / sweep.max_t,
        "saved": 1 - short.work / whole.work,
        "regret": whole.regret_of(at_end),
        "regret_again": whole.regret_of(after),
        "regret_all": whole.regret,
    }
    if not ended:
        return found
    again, more, unit = abs(after - at_end), abs(last - at_end), max(noise, 1e-12)
    in_noise = {"said": left / unit, "again": again / unit, "more": more / unit}
    return found | in_noise | {"above": float(again > noise), "above_all": float(more > noise)}


def table(runs: pd.DataFrame) -> str:
    """Means by family and scheduler; in units of the noise, medians over the sweeps ended."""
    rows = []
    for (family, scheduler), part in runs.groupby(["family", "scheduler"], sort=False):
        mean, middle = part.mean(numeric_only=True), part.median(numeric_only=True)
        rows.append(
            [
                f"{family} (chosen on)" if family == CHOSEN_ON else str(family),
                str(scheduler),
                f"{int(part['ended'].sum())} of {len(part)}",
                f"{mean['at']:.1f} of {mean['of']:.1f}",
                f"{100 * mean['saved']:.0f} %",
                *(number(100 * mean[name], 1) for name in ("regret", *REGRETS_LATER)),
                *(number(middle[name], 2) for name in ("said", "again", "more")),
                *(number(100 * mean[name], 0, " %") for name in ("above", "above_all")),
            ]
        )
    return markdown(list(HEADER), rows)


def main(arguments: list[str] | None = None) -> int:
    """Replay, and print the table; regrets in per cent, gains in deviations of an evaluation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("curves", type=Path)
    parser.add_argument("--quick", action="store_true", help="one sweep a family, one ordering")
    options = parser.parse_args(arguments)
    began = time.process_time()
    sweeps, families, _ = load(options.curves, options.quick)
    fewest = DiminishingReturns().min_trials
    rows = [
        {"family": families[s.name], "sweep": s.name, "scheduler": name, **judge(s, name, seed)}
        for s in sweeps
        if len(s) >= fewest and not s.name.endswith("_at_equal_step")
        for name in (NONE, OURS)
        for seed in range(1 if options.quick else ORDERINGS)
    ]
    runs = pd.DataFrame(rows)
    print(table(runs))
    print(f"\n{time.process_time() - began:.0f} CPU seconds", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
