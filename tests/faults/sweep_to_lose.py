"""A sweep whose driver is killed when the checkpoint that Ray's snapshot names has been deleted.

Usage: python -m tests.faults.sweep_to_lose ADDRESS STORAGE OURS

The trial gets worse after its second report, so that Ray, which keeps the two best, deletes the
newest but one at every report, and writes a snapshot at every second. OURS says what of ours the
sweep has besides `checkpoint_config`: "scheduler", "stopper" or "nothing". A second life restores
the sweep and runs it to its end.
"""

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune

from tune_stoppers import BoundASHAScheduler, PatienceStopper, best_states, checkpoint_config

STEPS, KILLED_AT = 9, 6
NAME, STARTS, OUTCOME = "sweep", "starts.jsonl", "outcome.json"


class Kill(tune.Callback):
    """The driver, when a checkpoint is about to be registered, in its first life."""

    def __init__(self, storage: str) -> None:
        self.storage = storage

    def on_checkpoint(
        self, iteration: int, trials: Any, trial: Any, *rest: Any, **more: Any
    ) -> None:
        died = Path(self.storage, "died")
        if trial.last_result["training_iteration"] == KILLED_AT and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def train(config: dict[str, Any]) -> None:
    """Count the steps; the checkpoint says how far."""
    step, checkpoint = 0, tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            step = json.loads(Path(folder, "step.json").read_text())
    with Path(config["storage"], STARTS).open("a") as starts:
        starts.write(f"{step}\n")
    while step < STEPS:
        step += 1
        time.sleep(0.2)
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "step.json").write_text(json.dumps(step))
            tune.report(
                {"loss": abs(step - 2.0)}, checkpoint=tune.Checkpoint.from_directory(folder)
            )


def main(address: str, place: str, ours: str) -> None:
    """Begin the sweep, or continue it."""
    ray.init(address=address, log_to_driver=False)
    folder = str(Path(place, NAME))
    if tune.Tuner.can_restore(folder):
        results = tune.Tuner.restore(folder, train).fit()
        outcome = {
            "errors": results.num_errors,
            "step": repr(results[0].metrics["training_iteration"]),
            "trials": sorted(results[i].metrics["trial_id"] for i in range(len(results))),
            "best": best_states(results, "loss", "min")[["trial_id", "checkpoint_step"]].to_dict(
                "list"
            ),
        }
        Path(place, OUTCOME).write_text(json.dumps(outcome))
        return
    scheduler = BoundASHAScheduler(100, 100) if ours == "scheduler" else None
    tune.Tuner(
        train,
        param_space={"storage": place},
        tune_config=tune.TuneConfig(metric="loss", mode="min", scheduler=scheduler),
        run_config=tune.RunConfig(
            name=NAME,
            storage_path=place,
            verbose=0,
            stop=PatienceStopper("loss", "min", patience=20) if ours == "stopper" else None,
            callbacks=[Kill(place)],
            checkpoint_config=checkpoint_config("loss", "min", keep=2),
            failure_config=tune.FailureConfig(max_failures=-1),
        ),
    ).fit()


if __name__ == "__main__":
    main(*sys.argv[1:])
