"""What a decision costs: microseconds per report and bytes of state per trial, and how both grow.

    python -m benchmarks.decision_cost [--trials 100 1000 10000] [--reports 20]

Every trial reports in turn, at once in all live trials, `--reports` times. Ray's own schedulers
get the same reports in the same run; the controller is a stand-in, so the cost is the scheduler's
alone (no journal: nothing is stored). The median is over all reports but the first of each trial,
or those of 20 seconds.
"""

import argparse
import gc
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule
from rich.console import Console
from rich.table import Table

import tune_stoppers as ts
from tune_stoppers import rules

STOPPED = ("STOP", "PAUSE")
SECONDS = 20.0  # at most, for one scheduler at one number of trials: Ray's median grows with both


class Cost(NamedTuple):
    """What one scheduler cost at one number of trials."""

    median: float  # µs per report
    p99: float  # µs per report
    state: float  # bytes per trial


class Running:
    """As much of a trial as a scheduler looks at."""

    status, storage, is_saving = Trial.RUNNING, None, False

    def __init__(self, number: int) -> None:
        self.trial_id = f"{number:08x}"
        self.config = {"lr": number}
        self.last_result: dict[str, Any] = {}


def schedulers(reports: int) -> dict[str, Callable[[], Any]]:
    """Ours and Ray's, by name."""
    task: Any = {"metric": "loss", "mode": "min"}
    return {
        "BoundASHAScheduler": lambda: ts.BoundASHAScheduler(reports, **task),
        "BoundASHAScheduler, nothing stopped": lambda: ts.BoundASHAScheduler(
            reports, dry_run=True, **task
        ),
        "RuleScheduler(Patience)": lambda: ts.RuleScheduler(rules.Patience(5), **task),
        "Ray ASHAScheduler": lambda: ASHAScheduler(max_t=reports, grace_period=1, **task),
        "Ray MedianStoppingRule": lambda: MedianStoppingRule(grace_period=2, **task),
    }


def reports_of(trials: int, reports: int, seed: int = 0) -> Iterator[tuple[int, int, float]]:
    """(trial, step, loss): curves that fall at different speeds, every trial once in each round."""
    chance = random.Random(seed)
    floors = [chance.random() for _ in range(trials)]
    speeds = [0.2 + chance.random() for _ in range(trials)]
    for step in range(1, reports + 1):
        order = list(range(trials))
        chance.shuffle(order)
        for trial in order:
            loss = floors[trial] + step ** -speeds[trial] + 0.01 * chance.random()
            yield trial, step, loss


def drive(scheduler: Any, trials: int, reports: int, upto: int) -> Iterator[tuple[int, float]]:
    """(step, µs) of each report, up to step `upto`; a trial that is stopped reports no more."""
    controller = SimpleNamespace(get_trials=list, get_live_trials=list, search_alg=None)
    running = {number: Running(number) for number in range(trials)}
    for trial in running.values():
        scheduler.on_trial_add(controller, trial)
    deadline = time.perf_counter() + SECONDS
    for number, step, loss in reports_of(trials, reports):
        if step > upto or (step > 1 and time.perf_counter() > deadline):
            return
        if number not in running:
            continue
        result = {"training_iteration": step, "time_total_s": float(step), "loss": loss}
        began = time.perf_counter_ns()
        action = scheduler.on_trial_result(controller, running[number], result)
        yield step, (time.perf_counter_ns() - began) / 1e3
        if action in STOPPED:
            scheduler.on_trial_complete(controller, running.pop(number), result)


def measure(make: Callable[[], Any], trials: int, reports: int) -> Cost:
    """The cost of one scheduler: the times first, then the memory at half of the reports."""
    gc.collect()
    gc.disable()  # as in `timeit`
    times = [took for step, took in drive(make(), trials, reports, reports) if step > 1]
    gc.enable()
    tracemalloc.start()
    scheduler = make()
    for _ in drive(scheduler, trials, reports, reports // 2):
        pass
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del scheduler
    return Cost(statistics.median(times), statistics.quantiles(times, n=100)[98], held / trials)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--reports", type=int, default=20)
    options = parser.parse_args()
    table = Table("scheduler", "trials", "µs/report, median", "p99", "bytes/trial", "growth")
    for name, make in schedulers(options.reports).items():
        costs = {n: measure(make, n, options.reports) for n in options.trials}
        first = costs[options.trials[0]].median
        for n, cost in costs.items():
            row = f"{cost.median:.1f}", f"{cost.p99:.1f}", f"{cost.state:.0f}"
            table.add_row(name, f"{n:,}", *row, f"{cost.median / first:.2f}x")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
