"""A sweep in a process of its own, to be killed and gone on with; used by the restore tests.

Usage: python sweep_to_kill.py STORAGE SCHEDULER [--restore]
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune

import tune_stoppers as ts
from tune_stoppers import rules

SCHEDULERS: dict[str, Any] = {
    "bound": lambda: ts.BoundASHAScheduler(18, grace_period=2),
    "promotion": lambda: ts.PromotionASHAScheduler(18, grace_period=2, pen=4),
    "rule": lambda: ts.RuleScheduler(rules.Patience(4, 0.01)),
}


def train(config: dict[str, Any]) -> None:
    """18 steps of a curve that is a function of the configuration and the step alone."""
    start, checkpoint = 0, tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            start = json.loads(Path(folder, "step.json").read_text())
    for step in range(start + 1, 19):
        time.sleep(0.1)
        loss = config["floor"] + 1 / step + 0.02 * (step * 7 % 3)
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "step.json").write_text(json.dumps(step))
            kept = tune.Checkpoint.from_directory(folder) if step % 3 == 0 else None
            tune.report({"loss": loss}, checkpoint=kept)


def main(storage: str, scheduler: str, *options: str) -> None:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    if "--restore" in options:
        tuner = tune.Tuner.restore(f"{storage}/exp", train)
    else:
        floors = [0.9, 0.0, 0.5, 0.8, 0.2, 0.7, 0.15, 0.05, 0.6, 0.1]
        tuner = tune.Tuner(
            train,
            param_space={"floor": tune.grid_search(floors)},
            tune_config=tune.TuneConfig(
                metric="loss",
                mode="min",
                scheduler=SCHEDULERS[scheduler](),
                max_concurrent_trials=1 if "--single" in options else 2,
            ),
            run_config=tune.RunConfig(name="exp", storage_path=storage, verbose=0),
        )
    results = tuner.fit()
    rows = {
        result.config["floor"]: [
            result.metrics["training_iteration"],
            result.metrics.get("stop_reason", ""),
        ]
        for result in results
        if result.config  # not of a trial that was given up before it ran
    }
    statuses = [trial.status for trial in results._experiment_analysis.trials]
    print(json.dumps({"statuses": statuses, "errors": results.num_errors, "trials": rows}))


if __name__ == "__main__":
    main(*sys.argv[1:])
