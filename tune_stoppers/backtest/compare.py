"""Which rule would have served these sweeps best: many rules, many orders of the same trials.

Over 350 lines by the docstring of `compare`, which is the reference of its keywords.
"""

from __future__ import annotations

import copy
import inspect
import logging
import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from ray import cloudpickle
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher, SearchGenerator
from ray.tune.stopper import Stopper
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tune_stoppers.backtest.comparison import NO_STOPPING, Comparison, finish
from tune_stoppers.backtest.histories import leave_out
from tune_stoppers.backtest.process import require_times
from tune_stoppers.backtest.replay import ReplayResult, replay
from tune_stoppers.backtest.score import RegretCurve, area, regret_curve, value_at
from tune_stoppers.backtest.thinning import thin
from tune_stoppers.history.sources import contents_of
from tune_stoppers.metrics import logger
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.tune.horizon_watch import MARK, told_later

Factory = Callable[..., Any]
SearcherFactory = Callable[[Sweep, int], Searcher | SearchGenerator]  # of a sweep and a seed
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
THINNED = (
    " (The curves are thinned to {most} reports, counted anew: take max_t from the sweep that the "
    "factory is given, sweep.max_t, or leave it out in an expression.)"
)
WORTH_A_PROCESS = 100_000  # recorded reports to replay; with fewer, starting processes takes longer


class Job(NamedTuple):
    """One replay."""

    sweep: int
    rule: str
    ordering: int


@dataclass(frozen=True)
class Plan:
    """What all replays share; units and meanings are those of `compare`."""

    sweeps: tuple[Sweep, ...]
    contents: tuple[frozenset[str], ...]  # of each before it was thinned: no history is to have it
    rules: dict[str, Factory]
    workers: int
    budget: float
    at: tuple[float, ...]
    resume_cost: float
    seed: int
    cost: Literal["reports", "seconds"]
    whole: bool
    max_pending: int | None
    metric: str | None
    mode: str | None
    searcher: SearcherFactory | None = None


def compare(
    sweeps: Sweep | Iterable[Sweep],
    rules: Mapping[str, Factory],
    *,
    searcher: SearcherFactory | None = None,
    workers: int = 8,
    orderings: int | Mapping[str, int] = 10,
    budget: float = 4.0,
    at: Sequence[float] = (1.0, 2.0, 4.0),
    baseline: str | None = None,
    resume_cost: float = 0.5,
    cost: Literal["reports", "seconds"] = "reports",
    whole: bool = True,
    max_pending: int | None = None,
    metric: str | None = None,
    mode: str | None = None,
    families: Mapping[str, str] | None = None,
    unscored: Iterable[str] = (),
    thin_to: int = 60,
    processes: int | None = None,
    progress: bool = True,
    seed: int = 0,
) -> Comparison:
    """Replay every sweep under every rule, in several orders of its trials, and score them.

    A sweep is scored by the area under its normalised regret over `budget`, as
    `ReplayResult.regret` defines it; one that has a target by the time to that target instead
    (`budget` where it is not reached), in units of what no stopping takes on average: its runs end
    there, so that the last value says nothing.

    Args:
        sweeps: one, or several.
        rules: names and factories: called without arguments, or with the sweep if they have a
            parameter without a default (so that `max_t` can follow the sweep), they return a
            scheduler, a stopper, a pair (scheduler, stopper) or None. "no stopping" is added if it
            is not there.
        searcher: a factory such as `lambda sweep, seed: OptunaSearch(seed=seed)`, called with the
            sweep and the seed of the ordering. As for `replay`, what it suggests replaces the
            shuffled order, under every rule; it may then differ between rules, as results do.
        workers: trials that run at a time.
        orderings: how many shuffled orders, or per rule; order k is the same for every rule.
        budget: time, in full trainings: the median over a sweep's trials of what each costs to its
            recorded end, a sweep with trials that were cut short included.
        at: times, in the same unit, at which regret and speed-up are told.
        baseline: the rule that others are measured against; None: no stopping.
        resume_cost: what each restart of a paused trial costs, in reports.
        cost: what a report takes: 1 each ("reports"), or the recorded "seconds".
        whole: continue past the budget until no trial is left, to learn savings and risk on the
            whole sweep. The scores do not change, and it takes longer.
        max_pending: as for `replay`; Ray's 200 let so many new trials go before one that a
            scheduler resumes.
        metric, mode: default, each sweep's own.
        families: sweep name to family; default, what the sweep's description says, else "sweeps".
        unscored: names of sweeps shown in the tables but left out of "overall".
        thin_to: longer curves are thinned to so many reports, see `thinning.thin`.
        processes: default, one per available core where there is enough to do; 1: in this one
            (otherwise a script needs the usual `if __name__ == "__main__":`).
        progress: a bar on standard error, if that is a terminal.
        seed: of the first order.

    Raises ValueError and TypeError for unfit arguments, and whatever a rule raises, with a note
    that says which rule, sweep and ordering.
    """
    listed = (sweeps,) if isinstance(sweeps, Sweep) else tuple(sweeps)
    rules = {NO_STOPPING: _nothing} | dict(rules)
    baseline = baseline or NO_STOPPING
    counts = _counts(rules, orderings)
    _check(listed, rules, baseline, budget, workers)
    plan = Plan(
        sweeps=tuple(thin(sweep, thin_to) for sweep in listed),
        contents=tuple(map(contents_of, listed)),
        rules=rules,
        workers=workers,
        budget=budget,
        at=tuple(time for time in at if time <= budget),
        resume_cost=resume_cost,
        seed=seed,
        cost=cost,
        whole=whole,
        max_pending=max_pending,
        metric=metric,
        mode=mode,
        searcher=searcher,
    )
    jobs = [
        Job(index, rule, ordering)
        for index in range(len(listed))
        for rule, count in counts.items()
        for ordering in range(count)
    ]
    rows, curves = [], {}
    for job, (row, curve) in zip(jobs, _run_all(plan, jobs, processes, progress), strict=True):
        sweep = listed[job.sweep]
        family = (families or {}).get(sweep.name, sweep.description.get("family", "sweeps"))
        if "max_t" in row["notes"] and plan.sweeps[job.sweep] is not sweep:
            row["notes"] += THINNED.format(most=thin_to)
        rows.append({"family": family, "scored": sweep.name not in set(unscored)} | row)
        curves[sweep.name, job.rule, job.ordering] = curve
    runs = finish(pd.DataFrame(rows), curves, baseline, plan.at, budget)
    found = Comparison(runs, curves, baseline, budget, plan.at, workers)
    for note in found.notes:
        logger.warning("%s", note, extra={MARK: True})
    return found


EXAMPLES = {"characters": "example.parquet", "lora": "lora"}


def example_path(name: str = "characters") -> Path:
    """Where the recorded sweeps that come with the package are; all of them ours.

    "characters": the Parquet file of a sweep over small character-level language models, recorded
    on a CPU. "lora": a folder of Parquet files, a sweep of LoRA fine-tunes of SmolLM2-135M each,
    recorded on a GPU over different tasks and search spaces::

        sweeps = [Sweep.from_parquet(path) for path in example_path("lora").glob("*.parquet")]

    Raises ValueError for another name.
    """
    if name not in EXAMPLES:
        raise ValueError(f"there is no example {name!r}; there are {', '.join(EXAMPLES)}.")
    return Path(__file__).with_name(EXAMPLES[name])


def run_one(plan: Plan, job: Job) -> tuple[dict[str, Any], RegretCurve]:
    """One replay: its row of `Comparison.runs`, and its regret over time in full trainings."""
    sweep = plan.sweeps[job.sweep]
    full, report = _typical(sweep, plan.cost)
    seed = plan.seed + job.ordering
    try:
        with _quiet(), told_later():
            scheduler, stopper = copy.deepcopy(_build(plan.rules[job.rule], sweep))
            left_out = leave_out(scheduler, plan.contents[job.sweep])
            result = replay(
                sweep,
                scheduler,
                stopper,
                searcher=None if plan.searcher is None else plan.searcher(sweep, seed),
                workers=plan.workers,
                seed=seed,
                metric=plan.metric,
                mode=plan.mode,
                cost=plan.cost,
                resume_cost=plan.resume_cost * report,
                budget=None if plan.whole else plan.budget * full,
                max_pending=plan.max_pending,
                on_stall="end",
            )
    except Exception as error:
        error.add_note(f"rule {job.rule!r}, sweep {sweep.name!r}, ordering {job.ordering}")
        raise
    result = replace(result, notes=tuple(dict.fromkeys((*result.notes, *left_out))))
    return _row(plan, job, result, full)


def _row(
    plan: Plan, job: Job, result: ReplayResult, full: float
) -> tuple[dict[str, Any], RegretCurve]:
    sweep = result.sweep
    curve = regret_curve(result.incumbent, result.regret_of, unit=full)
    times = result.journal["time"][result.journal["action"] == "start"] / full
    started = float((times < plan.budget).sum() / len(sweep))
    targeted = sweep.target is not None and result.metric == sweep.metric
    hit = np.inf if result.time_to_target is None else result.time_to_target / full
    ended = all(trial.is_finished() for trial in result.cluster.trials)
    row: dict[str, Any] = {
        "sweep": sweep.name,
        "surrogate": sweep.surrogate,
        "trials": len(sweep),
        "rule": job.rule,
        "ordering": job.ordering,
        "scored_by": "time to target" if targeted else "regret",
        "auc": np.nan if targeted else area(curve, plan.budget),
    }
    for time in plan.at:
        row[f"regret_at_{time:g}"] = np.nan if targeted else value_at(curve, time)
    return row | {
        "time_to_target": hit if hit <= plan.budget else np.nan,
        "regret_end": np.nan if targeted else result.regret,
        "savings": result.savings if ended else np.nan,
        "best_stopped": np.nan if targeted else float(result.best_stopped),
        "started": started,
        "reports": result.reports,
        "stalled": result.stalled,
        "notes": " ".join(result.notes),
    }, curve


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what Ray's HyperBand logs of each bracket and Optuna of each study, and numpy of
    ASHA's rungs of NaN alone."""
    loggers = [logging.getLogger(name) for name in ("ray.tune", "optuna")]
    levels = [each.level for each in loggers]
    for each, level in zip(loggers, levels, strict=True):
        each.setLevel(max(level, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def _nothing() -> None:
    """Every trial runs to its recorded end."""


def _build(factory: Factory, sweep: Sweep) -> tuple[TrialScheduler | None, Stopper | None]:
    needed = [
        p
        for p in inspect.signature(factory).parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    made = factory(sweep) if needed else factory()
    scheduler, stopper = made if isinstance(made, tuple) else (made, None)
    if isinstance(scheduler, Stopper):
        scheduler, stopper = None, scheduler
    return scheduler, stopper


def _typical(sweep: Sweep, cost: Literal["reports", "seconds"]) -> tuple[float, float]:
    """What the median trial costs to its recorded end, and what the median report does."""
    if cost == "reports":
        return float(np.median([len(curve) for curve in sweep])), 1.0
    require_times(sweep)
    durations = [curve.durations() for curve in sweep]
    full = float(np.median([seconds.sum() for seconds in durations]))
    return full, float(np.median(np.concatenate(durations)))


def _run_all(
    plan: Plan, jobs: Sequence[Job], processes: int | None, progress: bool
) -> Iterator[tuple[dict[str, Any], RegretCurve]]:
    if processes is None:
        recorded = sum(plan.sweeps[job.sweep].reports for job in jobs)
        processes = 1 if recorded < WORTH_A_PROCESS else len(os.sched_getaffinity(0))
    count = min(processes, len(jobs))
    console = Console(stderr=True)
    columns = (TextColumn("replays"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, disable=not (progress and console.is_terminal), transient=True
    ) as bar:
        results = (run_one(plan, job) for job in jobs) if count == 1 else _spread(plan, jobs, count)
        yield from bar.track(results, total=len(jobs))


def _spread(
    plan: Plan, jobs: Sequence[Job], count: int
) -> Iterator[tuple[dict[str, Any], RegretCurve]]:
    """The jobs in other processes, spawned: nothing of this one's threads and Ray is copied."""
    payload = cloudpickle.dumps(plan)  # factories may be lambdas
    context = multiprocessing.get_context("spawn")
    with _one_thread_each(), ProcessPoolExecutor(count, context, _receive, (payload,)) as pool:
        try:
            yield from pool.map(_run_received, jobs, chunksize=max(1, len(jobs) // (count * 50)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_received: Plan | None = None  # in a process of the pool


def _receive(payload: bytes) -> None:
    global _received
    _received = cloudpickle.loads(payload)


def _run_received(job: Job) -> tuple[dict[str, Any], RegretCurve]:
    assert _received is not None
    return run_one(_received, job)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started meanwhile use one thread each, unless the user said otherwise."""
    mine = [name for name in THREADS if name not in os.environ]
    os.environ.update(dict.fromkeys(mine, "1"))
    try:
        yield
    finally:
        for name in mine:
            del os.environ[name]


def _counts(rules: Mapping[str, Factory], orderings: int | Mapping[str, int]) -> dict[str, int]:
    if isinstance(orderings, int):
        counts = dict.fromkeys(rules, orderings)
    else:
        unknown = set(orderings) - set(rules)
        if unknown:
            raise ValueError(f"orderings names no rule {sorted(unknown)[0]!r}; rules: {[*rules]}.")
        most = max(orderings.values(), default=0)
        counts = {rule: orderings.get(rule, most) for rule in rules}
    for rule, count in counts.items():
        if count < 1:
            raise ValueError(f"orderings must be at least 1, got {count} for rule {rule!r}.")
    return counts


def _check(
    sweeps: Sequence[Sweep],
    rules: Mapping[str, Factory],
    baseline: str,
    budget: float,
    workers: int,
) -> None:
    names = [sweep.name for sweep in sweeps]
    if not names:
        raise ValueError("compare needs at least one sweep, got none.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two sweeps are named {twice!r}; give each its own name.")
    for name, factory in rules.items():
        if not callable(factory):
            kind = type(factory).__name__
            raise TypeError(
                f"rule {name!r} must be a factory such as `lambda: {kind}(…)`, got a {kind}."
            )
    if baseline not in rules:
        raise ValueError(f"baseline {baseline!r} is none of the rules: {', '.join(rules)}.")
    if not 0 < budget < float("inf"):
        raise ValueError(f"budget must be positive, in full trainings per worker, got {budget}.")
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}.")
