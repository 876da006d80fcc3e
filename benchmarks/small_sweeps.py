"""Sweeps as people run them: pools of 8 to 64 configurations, 1 to 8 workers, run to the end.

    python -m benchmarks.small_sweeps CURVES_DIR [--families lora peft …] [--pools 8 16 40 64]
        [--workers 1 2 4 8] [--draws 8] [--only RULE…] [--runs RUNS.csv]
        [--out benchmarks/results/small_sweeps.md] [--picture FILE.svg] [--processes N] [--quick]

Families other than fine-tunes of language models are run with 4 workers only, 8 configurations
with 2, unless `--everywhere` is given. `--runs` keeps a row of every replay in a CSV file: with
`--only` a later call runs those rules anew, and takes the others from there; with `--draws 0` it
only writes the tables.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import pandas as pd
import ray

from benchmarks.pools import FILES, LLM, Task, draw, load, random_search, regret_by, scored
from benchmarks.results import insert
from benchmarks.small_rules import BASELINES, RULES
from benchmarks.small_tables import KEYS, RANDOM, picture, section
from tune_stoppers.backtest.comparison import NO_STOPPING
from tune_stoppers.backtest.replay import ReplayResult, replay
from tune_stoppers.backtest.score import area, regret_curve
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.tune.horizon_watch import told_later

RESUME_COST = 0.5  # reports
SHARES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8)  # of the work, for random search
Row = dict[str, Any]


class Cell(NamedTuple):
    """A pool, and how many of its trials run at a time."""

    task: int
    pool: int
    workers: int
    draw: int


def run_cell(task: Task, cell: Cell, rules: Sequence[str]) -> list[Row]:
    """A row for each rule, and for random search with shares of the work."""
    pool = draw(task, cell.pool, cell.draw)
    base, took = _replay(task, pool, cell, NO_STOPPING)
    regret_of = regret_by(pool, base)
    search = random_search(pool, cell.workers, regret_of)
    common = {"family": task.family, "sweep": pool.name, **cell._asdict()}
    del common["task"]
    rows: list[Row] = []
    for rule in rules:
        result, took = (base, took) if rule == NO_STOPPING else _replay(task, pool, cell, rule)
        work = 1.0 - result.savings
        rows.append(
            common
            | {
                "rule": rule,
                "area": area(regret_curve(result.incumbent, regret_of), base.seconds),
                "final": regret_of(result.best),
                "work": work,
                "wall": result.seconds / base.seconds,
                "killed": float(regret_of(result.best) > regret_of(base.best)),
                "random": float(search(work)),
                "reports": result.reports,
                "cpu": took,
                "stalled": float(result.stalled),
            }
        )
    shares = [
        {"rule": f"{RANDOM}, {share:.0%}", "work": share, "final": float(search(share))}
        for share in SHARES
    ]
    return rows + [common | row for row in shares]


def _replay(task: Task, pool: Sweep, cell: Cell, rule: str) -> tuple[ReplayResult, float]:
    """The replay, judged by the metric that counts, and the CPU seconds that it took."""
    contestant = RULES[rule]
    metric, mode = task.seen
    if contestant.ordered is not None:
        pool = contestant.ordered(pool)
    searcher = contestant.searcher and contestant.searcher(pool, cell.draw)
    began = time.process_time()
    try:
        with told_later(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
            result = replay(
                pool,
                contestant.make(pool),
                searcher=searcher,
                workers=cell.workers,
                seed=cell.draw,
                order="recorded",
                metric=metric,
                mode=mode,
                cost="seconds",
                resume_cost=RESUME_COST * task.report,
                checkpoint_every=int(contestant.checkpoints),
                on_stall="end",
            )
    except Exception as error:
        error.add_note(f"rule {rule!r}, sweep {pool.name!r}, {cell}")
        raise
    return scored(result), time.process_time() - began


_tasks: list[Task] = []  # in a process of the pool
Job = tuple[Cell, tuple[str, ...]]


def _receive(folder: Path, families: tuple[str, ...], most: int | None) -> None:
    logging.getLogger("ray.tune").setLevel(logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _tasks[:] = load(folder, families, most)


def _run_received(job: Job) -> list[Row]:
    cell, rules = job
    return run_cell(_tasks[cell.task], cell, rules)


def planned(args: argparse.Namespace, tasks: Sequence[Task], kept: pd.DataFrame) -> list[Job]:
    """The cells, each with the rules to run: those asked for, and baselines that are not kept."""
    asked = set(args.only or RULES)
    done = set(kept[KEYS].itertuples(index=False, name=None))
    jobs = []
    for place, task in enumerate(tasks):
        for size, workers in product(args.pools, args.workers):
            usual = workers == (2 if size == 8 else 4)
            if not (usual or task.family in LLM or args.everywhere):
                continue
            for number in range(args.draws):
                key = (task.family, task.sweep.name, size, workers, number)
                missing = {rule for rule in BASELINES if (*key, rule) not in done}
                rules = tuple(rule for rule in RULES if rule in asked | missing)
                jobs.append((Cell(place, size, workers, number), rules))
    return jobs


def run_all(args: argparse.Namespace, jobs: Sequence[Job], given: tuple[Any, ...]) -> Iterator[Row]:
    """The rows of every job, in several processes unless one is asked for."""
    count = args.processes or len(os.sched_getaffinity(0))
    if count == 1:
        _receive(*given)
        yield from _told(map(_run_received, jobs), len(jobs))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, _receive, given) as pool:
        yield from _told(pool.map(_run_received, jobs), len(jobs))


def _told(results: Iterator[list[Row]], total: int) -> Iterator[Row]:
    """Their rows; how far it is goes to standard error once a minute."""
    began = told = time.monotonic()
    for done, rows in enumerate(results, start=1):
        if time.monotonic() - told > 60:
            told = time.monotonic()
            print(f"{done}/{total} pools, {told - began:.0f} s", file=sys.stderr, flush=True)
        yield from rows


def measure(args: argparse.Namespace) -> pd.DataFrame:
    """A row per replay: what was kept of earlier calls, and what is run now."""
    given = (args.curves, tuple(args.families), 1 if args.quick else None)
    kept = pd.DataFrame(columns=KEYS)
    if args.runs is not None and args.runs.exists():
        kept = pd.read_csv(args.runs)
    rows: list[Row] = []
    try:
        for row in run_all(args, planned(args, load(*given), kept), given):
            rows.append(row)
    finally:
        new = pd.DataFrame(rows, columns=None if rows else KEYS)
        runs = pd.concat([kept, new]) if len(kept) else new
        runs = runs.drop_duplicates(KEYS, keep="last", ignore_index=True)
        if args.runs is not None:  # also what there is when a rule has failed
            runs.to_csv(args.runs, index=False)
    return runs


def parsed(given: list[str] | None) -> argparse.Namespace:
    """The arguments; a wrong one ends the program with what to type instead."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small_sweeps")
    parser.add_argument("curves", type=Path, help="folder of recorded sweeps, Parquet files")
    parser.add_argument("--families", nargs="+", default=list(FILES), choices=list(FILES))
    parser.add_argument("--pools", nargs="+", type=int, default=[8, 16, 40, 64])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--draws", type=int, default=8, help="of each pool")
    parser.add_argument("--only", nargs="+", choices=list(RULES), help="beside the baselines")
    parser.add_argument("--runs", type=Path, help="CSV file of all replays, kept and added to")
    parser.add_argument("--out", type=Path, help="Markdown file; default: standard output")
    parser.add_argument("--picture", type=Path, help="SVG file: work against final regret")
    parser.add_argument("--processes", type=int, help="default: one per available core")
    parser.add_argument("--everywhere", action="store_true", help="all workers for all families")
    parser.add_argument("--quick", action="store_true", help="one sweep a family, two draws")
    args = parser.parse_args(given)
    if not args.curves.is_dir():
        parser.error(f"there is no folder {args.curves}.")
    if args.quick:
        args.draws = min(args.draws, 2)
    return args


def main(given: list[str] | None = None) -> int:
    """Run the benchmark. 0: done; 2: a user's mistake."""
    args = parsed(given)
    try:
        runs = measure(args)
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    head = [
        "# Small sweeps, run to the end",
        f"`python -m benchmarks.small_sweeps CURVES_DIR --draws {runs['draw'].nunique()}`, "
        f"{time.strftime('%Y-%m-%d')}, Ray {ray.__version__}, Optuna {optuna.__version__}; "
        f"{runs['cpu'].sum() / 60:.0f} minutes of CPU time.",
    ]
    if args.picture is not None:
        picture(runs, args.picture)
        there = os.path.relpath(args.picture, args.out.parent if args.out else ".")
        head.append(f"![Work against final regret, fine-tunes of language models]({there})")
    text = "\n\n".join([*head, *section(runs)])
    if args.out is None:
        print(text)
    else:
        insert(args.out, "small_sweeps", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
