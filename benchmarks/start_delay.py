"""How long a worker waits between two trials: under ours, and under Ray's FIFO in the same run.

    python -m benchmarks.start_delay [--trials 40] [--seconds 0.5] [--workers 2] [--rounds 3]

Trials that sleep, `reuse_actors=True`, so that starting a process is not what is measured. Each
round runs every scheduler once, in turn, in one Ray session: what else the machine does, all of
them suffer. "gap": from the end of a trial's function to the begin of the next one's in the same
process, all rounds together. "busy": the share of the workers' time that is spent in trials.
"""

import argparse
import itertools
import logging
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler

from tune_stoppers import AutoScheduler, BoundASHAScheduler
from tune_stoppers.report.terminal.tables import markdown

FIFO = "Ray FIFO"
SCHEDULERS: dict[str, Callable[[], Any]] = {
    FIFO: FIFOScheduler,
    "BoundASHAScheduler": lambda: BoundASHAScheduler(100, 100),
    "AutoScheduler": lambda: AutoScheduler(100, 100),
}

Span = tuple[float, float]  # begin and end


def train(config: dict[str, Any]) -> None:
    """One report after `seconds`."""
    begin = time.time()
    time.sleep(config["seconds"])
    tune.report({"loss": config["x"], "begin": begin, "end": time.time(), "worker": os.getpid()})


def sweep(scheduler: Any, trials: int, seconds: float) -> list[list[Span]]:
    """What each process did, in the order of time."""
    with tempfile.TemporaryDirectory() as folder:
        results = tune.Tuner(
            tune.with_resources(train, {"cpu": 1}),
            param_space={"x": tune.uniform(0, 1), "y": tune.uniform(0, 1), "seconds": seconds},
            tune_config=tune.TuneConfig(
                metric="loss",
                mode="min",
                num_samples=trials,
                reuse_actors=True,
                scheduler=scheduler,
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
    spans: defaultdict[int, list[Span]] = defaultdict(list)
    for result in results:
        told = result.metrics or {}
        spans[told["worker"]].append((told["begin"], told["end"]))
    return [sorted(each) for each in spans.values()]


def measured(runs: list[list[list[Span]]]) -> tuple[list[float], float]:
    """The gaps in milliseconds, and the share of time that was spent in trials."""
    gaps, worked, there = list[float](), 0.0, 0.0
    for spans in (spans for run in runs for spans in run):
        gaps += [1e3 * (b[0] - a[1]) for a, b in itertools.pairwise(spans)]
        worked += sum(end - begin for begin, end in spans)
        there += spans[-1][1] - spans[0][0]
    return gaps, worked / there


def main() -> int:
    """Run each in turn, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    logging.getLogger("ray").setLevel(logging.ERROR)
    runs: dict[str, list[list[list[Span]]]] = {name: [] for name in SCHEDULERS}
    ray.init(
        address="local", num_cpus=options.workers, include_dashboard=False, log_to_driver=False
    )
    for _ in range(options.rounds):
        for name, make in SCHEDULERS.items():
            runs[name].append(sweep(make(), options.trials, options.seconds))
    ray.shutdown()
    usual = float(np.median(measured(runs[FIFO])[0]))
    rows = []
    for name, of_one in runs.items():
        gaps, busy = measured(of_one)
        middle, mean, late = np.median(gaps), np.mean(gaps), np.percentile(gaps, 90)
        row = [f"{number:.1f}" for number in (middle, mean, late)]
        rows.append([name, *row, f"{middle / usual:.2f}", f"{busy:.3f}"])
    header = ["scheduler", "gap, ms: median", "mean", "90 %", "median, of FIFO's", "busy"]
    print(markdown(header, rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
