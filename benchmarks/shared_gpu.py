"""A sweep of LoRA fine-tunes that shared a GPU, again under other schedulers, in its own seconds.

    python -m benchmarks.shared_gpu [--real]

`shared_gpu.parquet` is what `experiments.gpu_sweep` recorded on one H200 without stopping: 24
trials, six at a time, 24 reports each; a report takes .76 s, a start 4 s. "replayed": over several
orders of the trials, a resume taken for 4 s. "--real": in the recorded order, each scheduler once,
through Ray itself, with trials that sleep for as long as theirs took.
"""

import argparse
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from tune_stoppers import AutoScheduler, Sweep
from tune_stoppers.backtest.replay import replay
from tune_stoppers.report.terminal.tables import markdown

RECORDING = Path(__file__).with_suffix(".parquet")
METRIC, HORIZON, WORKERS, RESUME = "eval_loss", 24, 6, 4.0  # RESUME: seconds
NONE = "no stopping"
SCHEDULERS: dict[str, Callable[[], TrialScheduler]] = {
    NONE: FIFOScheduler,
    "Ray ASHA, defaults": lambda: ASHAScheduler(max_t=HORIZON),
    "AutoScheduler": lambda: AutoScheduler(max_t=HORIZON),
}


class Run(NamedTuple):
    """What a sweep took, and found."""

    reports: float
    worked: float  # seconds that workers were busy
    wall: float  # seconds
    best: float


def replayed(sweep: Sweep, name: str, orders: int) -> list[Run]:
    """The sweep in so many orders of its trials."""
    runs = []
    for seed in range(orders):
        again = replay(
            sweep,
            SCHEDULERS[name](),
            workers=WORKERS,
            seed=seed,
            cost="seconds",
            resume_cost=RESUME,
            metric=METRIC,
            mode="min",
        )
        runs.append(Run(again.reports, again.work, again.seconds, again.best))
    return runs


def sleeper(config: dict[str, Any], *, curves: dict[str, list[tuple[float, float]]]) -> None:
    """Reports what the trial reported, as far apart, each with a checkpoint."""
    checkpoint, done = tune.get_checkpoint(), 0
    curve = curves[json.dumps(config, sort_keys=True)]
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            done = int(Path(folder, "done").read_text())
        time.sleep(RESUME)
    for number, (seconds, loss) in enumerate(curve[done:], start=done + 1):
        time.sleep(seconds)
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "done").write_text(str(number))
            tune.report({METRIC: loss}, checkpoint=tune.Checkpoint.from_directory(folder))


def curves_of(sweep: Sweep) -> Iterator[tuple[dict[str, Any], list[tuple[float, float]]]]:
    """Each configuration with its reports: seconds since the one before, and loss."""
    for curve in sweep:
        losses = curve.metrics[METRIC].tolist()
        yield dict(curve.config), list(zip(curve.durations().tolist(), losses, strict=True))


def through_ray(sweep: Sweep, name: str) -> Run:
    """The sweep in real time."""
    known = list(curves_of(sweep))
    curves = {json.dumps(config, sort_keys=True): curve for config, curve in known}
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        results = tune.Tuner(
            tune.with_parameters(sleeper, curves=curves),
            param_space=tune.grid_search([config for config, _ in known]),
            tune_config=tune.TuneConfig(
                metric=METRIC, mode="min", scheduler=SCHEDULERS[name](), reuse_actors=True
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
        wall = time.monotonic() - begin
    ran = [result for result in results if (result.metrics or {}).get("time_total_s")]
    worked = sum((result.metrics or {})["time_total_s"] for result in ran)
    frames = [result.metrics_dataframe for result in ran]
    best = min(float(frame[METRIC].min()) for frame in frames if frame is not None)
    return Run(sum(len(frame) for frame in frames if frame is not None), worked, wall, best)


def table(runs: dict[str, list[Run]]) -> str:
    """Means, and how much of no stopping they are."""
    whole = np.mean(runs[NONE], axis=0)
    rows = []
    for name, found in runs.items():
        mean = np.mean(found, axis=0)
        parts = [f"{mean[i]:.0f} ({mean[i] / whole[i]:.2f})" for i in range(3)]
        rows.append([name, *parts, f"{mean[3]:.4f}", f"{max(run.best for run in found):.4f}"])
    head = ["scheduler", "reports", "seconds at work", "wall clock, s", "best loss", "worst"]
    return markdown(head, rows)


def main(given: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.shared_gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--orders", type=int, default=16, help="of the trials, replayed (16)")
    parser.add_argument("--real", action="store_true", help="through Ray, in real time")
    options = parser.parse_args(given)
    sweep = Sweep.from_parquet(RECORDING)
    if not options.real:
        print(table({name: replayed(sweep, name, options.orders) for name in SCHEDULERS}))
        return 0
    logging.getLogger("ray").setLevel(logging.ERROR)
    ray.init(address="local", num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    runs = {name: [through_ray(sweep, name)] for name in SCHEDULERS}
    ray.shutdown()
    print(table(runs))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
