"""What earlier sweeps are worth to AutoScheduler: each sweep, with the others of its family known.

python -m benchmarks.history_gain CURVES_DIR [--families lora] [--pools 16 40] [--draws 4]
    [--workers 4] [--all] [--beside taskset]

Pools as in `benchmarks.small_sweeps`. "shuffled": the same history with its outcomes given to other
configurations at random, as one that knows nothing would be. Where sweeps share configurations
(TaskSet's do), those of the pool are left out of the history. With `--beside` the sweeps of those
families are in the history too.

With `--all` also: a history in which the worst is the best; the other schedulers that take one; and
what can be done by hand with Ray's ASHA. "points_to_evaluate": the pool in the order in which
`suggest` would name its configurations. "TPE": Optuna's, of whose suggestions each is the nearest
trial of the pool; "warm": told of the earlier trials and their last values (`evaluated_rewards`),
where they lie within its space.
"""

from __future__ import annotations

import argparse
import copy
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from ray.tune.search.optuna import OptunaSearch
from ray.tune.utils import flatten_dict

from benchmarks.contestants import asha
from benchmarks.pools import FILES, Task, draw, load
from benchmarks.recorded import horizon
from benchmarks.results import insert
from benchmarks.small_rules import ASHA, RULES, Contestant
from benchmarks.small_sweeps import Cell, run_cell
from benchmarks.small_tables import cell, mean_se, ratio_se
from tune_stoppers import AutoScheduler, BoundASHAScheduler, FreezeThawScheduler
from tune_stoppers.backtest.nearest import space_of
from tune_stoppers.history import History
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.report.terminal.tables import markdown

COLD, KNOWN, SHUFFLED = "no history", "history", "shuffled history"
NEGATED = "negated history"
POINTS, TPE, WARM = "points_to_evaluate", "TPE", "warm TPE"


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


def turned(sweep: Sweep) -> Sweep:
    """The worst is the best."""
    _, mode = sweep.objective()
    other = copy.copy(sweep)
    other.mode = "max" if mode == "min" else "min"
    return other


def runs_of(
    tasks: Sequence[Task],
    pools: Sequence[int],
    draws: int,
    workers: Sequence[int] = (4,),
    everything: bool = False,
    beside: Sequence[Task] = (),
) -> pd.DataFrame:
    """A row for each pool, number of workers and rule; `beside`: more sweeps for each history."""
    rows: list[dict[str, Any]] = []
    for index, task in enumerate(tasks):
        others = [t.sweep for t in tasks if t.family == task.family and t is not task]
        others += [t.sweep for t in beside if t.family != task.family]
        if not others:
            continue
        for size in pools:
            for number in range(draws):
                mine = [curve.config for curve in draw(task, size, number)]
                known = [without(sweep, mine) for sweep in others]
                rules = _rules(known, number, everything)
                RULES.update(rules)
                for count in workers:
                    cell_ = Cell(index, size, count, number)
                    found = run_cell(task, cell_, [*rules, ASHA])
                    rows += [row for row in found if row["rule"] in RULES]
    return pd.DataFrame(rows)


def _rules(known: Sequence[Sweep], seed: int, everything: bool) -> dict[str, Contestant]:
    history = History.of(known)
    rules = {
        f"AutoScheduler, {COLD}": _with(AutoScheduler, None),
        f"AutoScheduler, {KNOWN}": _with(AutoScheduler, history),
        f"AutoScheduler, {SHUFFLED}": _with(
            AutoScheduler, History.of([shuffled(sweep, seed) for sweep in known])
        ),
    }
    if not everything:
        return rules
    rules[f"AutoScheduler, {NEGATED}"] = _with(AutoScheduler, History.of(list(map(turned, known))))
    ordered = partial(BoundASHAScheduler, order="model")
    for name, make in (("FreezeThaw", FreezeThawScheduler), ("BoundASHA, ordered", ordered)):
        rules[f"{name}, {COLD}"] = _with(make, None)
        rules[f"{name}, {KNOWN}"] = _with(make, history)
    by_hand = partial(asha, 4, None)
    rules[f"{ASHA}, {POINTS}"] = Contestant(by_hand, ordered=partial(promising, history))
    rules[f"{ASHA}, {TPE}"] = Contestant(by_hand, searcher=partial(tpe, ()))
    rules[f"{ASHA}, {WARM}"] = Contestant(by_hand, searcher=partial(tpe, known))
    return rules


def _with(make: Callable[..., Any], history: History | None) -> Contestant:
    return Contestant(lambda pool: make(**horizon(pool), history=history))


def promising(history: History, pool: Sweep) -> Sweep:
    """The pool in the order in which `suggest` would name its configurations."""
    order, _ = history.choose([curve.config for curve in pool], len(pool))
    ordered = copy.copy(pool)
    ordered.curves = tuple(pool.curves[place] for place in order or range(len(pool)))
    return ordered


def tpe(known: Sequence[Sweep], pool: Sweep, seed: int) -> Any:
    """Optuna's TPE over the space of the pool, told of what `known` sweeps found in it."""
    space = flatten_dict(space_of(pool))
    points, values = [], []
    for sweep in known:
        metric, _ = sweep.objective()
        for curve in sweep:
            point = {name: curve.config.get(name) for name in space}
            last = curve.metrics[metric][-1]
            if np.isfinite(last) and all(_holds(space[name], v) for name, v in point.items()):
                points.append(point)
                values.append(float(last))
    metric, mode = pool.objective()
    return OptunaSearch(
        space,
        metric=metric,
        mode=mode,
        seed=seed,
        points_to_evaluate=points or None,
        evaluated_rewards=values or None,
    )


def _holds(domain: Any, value: Any) -> bool:
    if value is None or not hasattr(domain, "lower"):
        return value in getattr(domain, "categories", ())
    return bool(domain.lower <= value <= domain.upper)


def table(runs: pd.DataFrame) -> str:
    """Means over sweeps and pools, then errors over draws, by family and number of workers."""
    lines = []
    for (family, workers), part in runs.groupby(["family", "workers"], sort=False):
        draws = part.groupby(["rule", "draw"], sort=False)[["area", "final", "work"]].mean()
        for rule in dict.fromkeys(part["rule"]):
            mine = draws.loc[rule]
            ratio = ratio_se(mine["area"], draws.loc[ASHA]["area"])
            shown = [cell(mean_se(mine[column])) for column in ("area", "final", "work")]
            lines.append([str(family), str(workers), rule, *shown, cell(ratio, 2, 1.0)])
    header = ["family", "workers", "rule", "area", "regret at the end", "work", "area ÷ ASHA's"]
    return markdown(header, lines)


def main(given: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history_gain")
    parser.add_argument("curves", type=Path, help="folder of recorded sweeps, Parquet files")
    parser.add_argument("--families", nargs="+", default=["lora"], choices=list(FILES))
    parser.add_argument("--pools", nargs="+", type=int, default=[16, 40])
    parser.add_argument("--draws", type=int, default=4, help="of each pool")
    parser.add_argument("--workers", nargs="+", type=int, default=[4])
    parser.add_argument("--beside", nargs="+", default=[], choices=list(FILES), help="families")
    parser.add_argument("--all", action="store_true", help="other schedulers and baselines too")
    parser.add_argument("--out", type=Path, help="Markdown file; default: standard output")
    args = parser.parse_args(given)
    logging.getLogger("ray.tune").setLevel(logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    tasks = load(args.curves, tuple(args.families))
    beside = load(args.curves, tuple(args.beside))
    text = table(runs_of(tasks, args.pools, args.draws, args.workers, args.all, beside))
    command = (
        f"python -m benchmarks.history_gain CURVES_DIR {' '.join((given or sys.argv[1:])[1:])}"
    )
    if args.out is None:
        print(text)
    else:
        title = f"# What earlier sweeps are worth\n\n`{command}`\n\n"
        insert(args.out, "history_gain", title + text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
