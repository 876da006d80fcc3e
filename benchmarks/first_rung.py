"""How early may a first rung be: how well do ranks at a report foretell the final ones?

    python -m benchmarks.first_rung CURVES_DIR [--families lora peft …]

For each family, over whole sweeps of at most 300 trials, at shares of the horizon: Kendall's tau
between what trials report there and the best that they ever reach (where the sweep has a target,
the time that they take to it); and where the best three trials of a sweep stand by then, as a
share of all: the worst of the three, mean over the family's sweeps. A rung with reduction factor
eta keeps the first 1/eta. Trials that have ended by then are left out.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from benchmarks.contestants import merit
from benchmarks.pools import FILES, Task, load
from tune_stoppers.report.terminal.tables import markdown, number

SHARES = (0.04, 0.08, 0.15, 0.25, 0.33, 0.5, 0.67)
MOST = 300  # trials of a sweep
LEAST = 5  # that have not ended
BEST = 3


def at(task: Task, share: float) -> tuple[float, float]:
    """Kendall's tau at a share of the horizon, and where the worst of the best three stands."""
    seen, direction = task.sweep.objective(*task.seen)
    rung = math.ceil(share * task.sweep.max_t)
    now, later = [], []
    for curve in task.sweep.curves[:MOST]:
        row = max(1, int(np.searchsorted(curve.iterations, rung, side="right")))
        if row < len(curve):
            now.append(float(curve.losses(seen, direction)[row - 1]))
            to_target, best = merit(curve, task.sweep)
            later.append(best if task.sweep.target is None else to_target)
    if len(now) < LEAST:
        return np.nan, np.nan
    tau = float(kendalltau(now, later).statistic)
    first = np.argsort(later, kind="stable")[:BEST]
    stands = [np.mean(np.asarray(now) < now[place]) for place in first]
    return tau, float(max(stands))


def row_of(family: str, tasks: Sequence[Task]) -> list[str]:
    """Means over the sweeps of a family."""
    found = np.array([[at(task, share) for share in SHARES] for task in tasks])
    taus, stands = np.nanmean(found, axis=0).T
    cells = [
        f"{number(t, 2)}, {number(100 * s, 0, ' %')}" for t, s in zip(taus, stands, strict=True)
    ]
    return [f"{family} ({len(tasks)})", *cells]


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("curves", type=Path, help="folder of recorded sweeps, Parquet files")
    parser.add_argument("--families", nargs="+", default=list(FILES), choices=list(FILES))
    args = parser.parse_args(given)
    rows = [row_of(family, load(args.curves, (family,))) for family in args.families]
    print(markdown(["family (sweeps)", *(f"at {share:.0%}" for share in SHARES)], rows))


if __name__ == "__main__":
    main()
