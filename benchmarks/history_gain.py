"""What earlier sweeps are worth to AutoScheduler: each sweep, with the others of its family known.

python -m benchmarks.history_gain CURVES_DIR [--families lora] [--pools 16 40] [--draws 4]

Pools as in `benchmarks.small_sweeps`, 4 workers. "shuffled": the same history with its outcomes
given to other configurations at random, as one that knows nothing would be. Where sweeps share
configurations (TaskSet's do), those of the pool are left out of the history.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.pools import FILES, Task, draw, load
from benchmarks.recorded import horizon
from benchmarks.results import insert
from benchmarks.small_rules import ASHA, RULES, Contestant
from benchmarks.small_sweeps import Cell, run_cell
from benchmarks.small_tables import cell, mean_se, ratio_se
from tune_stoppers import AutoScheduler
from tune_stoppers.history import History
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.report.terminal.tables import markdown

COLD, KNOWN, SHUFFLED = "no history", "history", "shuffled history"
WORKERS = 4


def without(sweep: Sweep, configs: Sequence[Any]) -> Sweep:
    """The sweep without the trials of these configurations."""
    rest = copy.copy(sweep)
    rest.curves = tuple(curve for curve in sweep.curves if curve.config not in configs)
    return rest


def shuffled(sweep: Sweep, seed: int) -> Sweep:
    """Each curve with the configuration of another one."""
    mixed = copy.copy(sweep)
    order = np.random.default_rng(seed).permutation(len(sweep.curves))
    pairs = zip(sweep.curves, order, strict=True)
    mixed.curves = tuple(replace(c, config=sweep.curves[other].config) for c, other in pairs)
    return mixed


def runs_of(tasks: Sequence[Task], pools: Sequence[int], draws: int) -> pd.DataFrame:
    """A row for each pool and rule."""
    rows: list[dict[str, Any]] = []
    for index, task in enumerate(tasks):
        others = [t.sweep for t in tasks if t.family == task.family and t is not task]
        if not others:
            continue
        for size in pools:
            for number in range(draws):
                mine = [curve.config for curve in draw(task, size, number)]
                known = [without(sweep, mine) for sweep in others]
                mixed = [shuffled(sweep, number) for sweep in known]
                rules = {
                    COLD: None,
                    KNOWN: History.of(known),
                    SHUFFLED: History.of(mixed),
                }
                RULES.update({name: _contestant(history) for name, history in rules.items()})
                cell_ = Cell(index, size, WORKERS, number)
                rows += [r for r in run_cell(task, cell_, [*rules, ASHA]) if r["rule"] in RULES]
    return pd.DataFrame(rows)


def _contestant(history: History | None) -> Contestant:
    make: Callable[[Sweep], Any] = lambda pool: AutoScheduler(**horizon(pool), history=history)  # noqa: E731
    return Contestant(make)


def table(runs: pd.DataFrame) -> str:
    """Means over sweeps and pools, then errors over draws, by family."""
    lines = []
    for family, of_family in runs.groupby("family", sort=False):
        draws = of_family.groupby(["rule", "draw"], sort=False)[["area", "final", "work"]].mean()
        for rule in (COLD, KNOWN, SHUFFLED, ASHA):
            mine = draws.loc[rule]
            ratio = ratio_se(mine["area"], draws.loc[ASHA]["area"])
            shown = [cell(mean_se(mine[column])) for column in ("area", "final", "work")]
            lines.append([str(family), rule, *shown, cell(ratio, 2, 1.0)])
    header = ["family", "AutoScheduler with", "area", "regret at the end", "work", "area ÷ ASHA's"]
    return markdown(header, lines)


def main(given: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history_gain")
    parser.add_argument("curves", type=Path, help="folder of recorded sweeps, Parquet files")
    parser.add_argument("--families", nargs="+", default=["lora"], choices=list(FILES))
    parser.add_argument("--pools", nargs="+", type=int, default=[16, 40])
    parser.add_argument("--draws", type=int, default=4, help="of each pool")
    parser.add_argument("--out", type=Path, help="Markdown file; default: standard output")
    args = parser.parse_args(given)
    text = table(runs_of(load(args.curves, tuple(args.families)), args.pools, args.draws))
    command = f"python -m benchmarks.history_gain CURVES_DIR --draws {args.draws}"
    if args.out is None:
        print(text)
    else:
        title = f"## What earlier sweeps are worth to AutoScheduler\n\n`{command}`\n\n"
        insert(args.out, "history_gain", title + text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
