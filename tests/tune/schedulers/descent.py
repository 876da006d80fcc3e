"""A trainable that diverges above a learning rate of 1; in a process of its own, to be killed.

Usage: python -m tests.tune.schedulers.descent STORAGE [--restore]
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ray import tune

from tune_stoppers import RollbackScheduler

STEPS = 16
RATES = [0.3, 1.6, 2.5, 1.1, 3.5]


def descend(config: dict[str, Any]) -> None:
    """Gradient descent on w²: each step multiplies w with 1 - 2 lr; beyond 10⁹ it fails."""
    step, w = 0, 1.0
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            step, w = json.loads(Path(folder, "state.json").read_text())
    start = step
    while step < STEPS:
        step += 1
        w *= 1 - 2 * config["opt"]["lr"]
        loss = w * w
        if loss > 1e9:
            raise FloatingPointError(f"the loss is {loss:g}")
        time.sleep(config.get("sleep", 0))
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "state.json").write_text(json.dumps([step, w]))
            tune.report(
                {"eval": {"loss": loss}, "lr": config["opt"]["lr"], "began_at": start},
                checkpoint=tune.Checkpoint.from_directory(folder),
            )


def scheduler() -> RollbackScheduler:
    """Quick to act, with room for several cuts."""
    return RollbackScheduler(patience=3, max_rollbacks=4, lr_key="opt/lr")


def main(storage: str, *options: str) -> None:
    """Run the sweep, or go on with it, and print how the trials ended."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    if "--restore" in options:
        tuner = tune.Tuner.restore(f"{storage}/exp", descend)
    else:
        tuner = tune.Tuner(
            descend,
            param_space={"opt": {"lr": tune.grid_search(RATES)}, "sleep": 0.1},
            tune_config=tune.TuneConfig(metric="eval/loss", mode="min", scheduler=scheduler()),
            run_config=tune.RunConfig(name="exp", storage_path=storage, verbose=0),
        )
    results = tuner.fit()
    rows = [[r.metrics["eval"]["loss"], r.metrics["lr"], r.config["opt"]["lr"]] for r in results]
    print(json.dumps({"errors": results.num_errors, "trials": rows}))


if __name__ == "__main__":
    main(*sys.argv[1:])
