"""Small pools of configurations, as people sweep them, drawn from recorded sweeps.

A pool is a few of a sweep's trials in a random order; its regret is that of the pool itself.
"""

from __future__ import annotations

import copy
import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.recorded import HORIZONS, in_reports, without_outcomes
from tune_stoppers.backtest.compare import example_path
from tune_stoppers.backtest.replay import ReplayResult
from tune_stoppers.backtest.score import WORST
from tune_stoppers.backtest.thinning import PROGRESS, equal_progress, only_metrics, thin
from tune_stoppers.recorded.sweep import Sweep

REPORTS = 30  # longer curves are thinned to so many: fine-tunes are evaluated 10 to 30 times
SIGNALS = ("train_loss", "train_ctc_loss", "train_batch_loss", "grad_norm", "lr")
PEFT_BY_LOSS, OWN = "peft, by the training loss", "own example"
FILES = {  # the family's files; our own sweep comes with the package
    "lora": "lora_*",
    "opda_deberta": "opda_deberta_*",
    "peft": "peft_*",
    "mlperf_llama2": "mlperf_llama2_*",
    PEFT_BY_LOSS: "peft_*",
    OWN: "",
    "opda_alexnet": "opda_alexnet_*",
    "taskset": "taskset_*",
    "lcbench": "yahpo_lcbench_*",
    "algoperf": "algoperf_*",
}
LLM = ("lora", "opda_deberta", "peft", "mlperf_llama2")  # fine-tunes of language models
ORDERS = 64  # of random search, over which it is averaged


@dataclass(frozen=True)
class Task:
    """A recorded sweep, and the metric that rules go by where it is not the one that counts."""

    family: str
    sweep: Sweep
    seen: tuple[str | None, str | None] = (None, None)  # metric and mode

    @property
    def report(self) -> float:
        """What the median report costs."""
        return float(np.median(np.concatenate([curve.durations() for curve in self.sweep])))


def load(folder: Path, families: tuple[str, ...], most: int | None = None) -> list[Task]:
    """The sweeps of these families, at most so many of each, ready to be drawn from.

    Raises FileNotFoundError where a family has no file in the folder.
    """
    tasks = []
    for family in families:
        paths = (
            [example_path()] if family == OWN else sorted(folder.glob(f"{FILES[family]}.parquet"))
        )
        if not paths:
            raise FileNotFoundError(
                f"{folder} holds no {FILES[family]}.parquet, the family {family!r}."
            )
        for path in paths[:most]:
            sweep = without_outcomes(Sweep.from_parquet(path))
            sweep.name = path.stem
            tasks.append(_task(family, sweep))
    return tasks


def _task(family: str, recorded: Sweep) -> Task:
    metric, _ = recorded.objective()
    signals = [name for name in SIGNALS if name in recorded.metrics]
    if recorded.name in HORIZONS:
        typical = int(np.median([len(curve) for curve in recorded]))
        sweep = equal_progress(recorded, HORIZONS[recorded.name], min(typical, REPORTS))
        signals.append(PROGRESS)
    else:
        sweep = in_reports(thin(recorded, REPORTS))
    seen = ("train_loss", "min") if family == PEFT_BY_LOSS else (None, None)
    return Task(family, only_metrics(sweep, metric, *signals), seen)


def draw(task: Task, size: int, number: int) -> Sweep:
    """The pool of this size and number: its trials in a random order, the same for every rule.

    Where the sweep has a target, some trial of the pool reaches it. `max_t` is that of the whole
    sweep: who plans a sweep knows how long its trials may be, not which of them it will have.
    """
    rng = np.random.default_rng([number, size])
    pool = copy.copy(task.sweep)
    while True:
        places = rng.permutation(len(task.sweep))[:size]
        pool.curves = tuple(task.sweep.curves[place] for place in places)
        if pool.target is None or any(reaches(pool, float(v)) for v in _bests(pool)):
            return pool


def reaches(sweep: Sweep, value: float) -> bool:
    """Whether a value of its metric is at the target or beyond."""
    _, mode = sweep.objective()
    assert sweep.target is not None
    return value <= sweep.target if mode == "min" else value >= sweep.target


def regret_by(pool: Sweep, result: ReplayResult) -> Callable[[float], float]:
    """The regret of a value: 1 until the target is reached and then 0; without one, the replay's.

    That is (value − best of the pool) / (median trial's best − best), within [0, 1].
    """
    if pool.target is None:
        return result.regret_of
    return lambda value: 0.0 if reaches(pool, value) else WORST


def scored(result: ReplayResult) -> ReplayResult:
    """The replay seen by the metric that counts, whatever its rule went by."""
    metric, mode = result.sweep.objective()
    return replace(result, metric=metric, mode=mode)


def random_search(
    pool: Sweep, workers: int, regret_of: Callable[[float], float]
) -> Callable[[npt.ArrayLike], npt.NDArray[np.float64]]:
    """The expected regret of training trials in random order, as a function of the work done.

    Work is a share of all reports of the pool. Trials run to their ends, `workers` at a time.
    """
    metric, mode = pool.objective()
    sign = 1.0 if mode == "min" else -1.0
    losses = [curve.losses(metric, mode) for curve in pool]
    costs = [curve.durations() for curve in pool]
    full = sum(float(cost.sum()) for cost in costs)
    known: dict[float, float] = {math.inf: WORST}
    steps = []
    for order in range(ORDERS):
        free = [0.0] * workers
        times, values, spent = [], [], []
        for place in np.random.default_rng(order).permutation(len(losses)):
            begin = heapq.heappop(free)
            heapq.heappush(free, begin + float(costs[place].sum()))
            times.append(begin + costs[place].cumsum())
            values.append(losses[place])
            spent.append(costs[place])
        by_time = np.argsort(np.concatenate(times), kind="stable")
        best = np.minimum.accumulate(np.concatenate(values)[by_time])
        work = np.concatenate(spent)[by_time].cumsum() / full
        rows = np.flatnonzero(best < np.concatenate([[math.inf], best[:-1]]))
        for loss in best[rows]:
            if loss not in known:
                known[loss] = regret_of(sign * loss)
        steps.append((work[rows], np.array([WORST, *(known[loss] for loss in best[rows])])))

    def expected(work: npt.ArrayLike) -> npt.NDArray[np.float64]:
        asked = np.asarray(work, dtype=float) + 1e-9
        each = [regrets[np.searchsorted(w, asked, side="right")] for w, regrets in steps]
        return np.asarray(np.mean(each, axis=0), dtype=float)

    return expected


def _bests(pool: Sweep) -> list[Any]:
    metric, mode = pool.objective()
    sign = 1.0 if mode == "min" else -1.0
    return [sign * curve.losses(metric, mode).min() for curve in pool]
