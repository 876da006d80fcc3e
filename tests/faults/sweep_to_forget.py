"""A sweep whose driver is killed after a rollback that Ray's only snapshot is too old to know of.

Usage: python -m tests.faults.sweep_to_forget ADDRESS STORAGE MOMENT

The one trial's best checkpoint, its rollback and more are of after the snapshot. MOMENT says where
the first life comes to a stand, to be killed there: "decided" (the rollback, before it is carried
out), "gone back" (it has not reported since), or "better" (it has found a better state since). A
second life restores the sweep and runs it to its end.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune

from tune_stoppers import RollbackScheduler

LOSSES = {  # by rate: from step 1 on, the last one for good
    1.0: [5.0, 4.0, 3.0, 2.0, 1.0, 1.5],
    0.5: [9.0, 9.0, 9.0, 9.0, 9.0, 0.5, 0.6],
    0.25: [9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 0.4, 0.3],
}
STANDS = {"gone back": (0.5, 6), "better": (0.5, 8)}  # before the report of this rate and step
STEPS = 9
NAME, STARTS, SECOND = "sweep", "starts.jsonl", "second life"


class OneSnapshot(RollbackScheduler):
    """Has Ray write a snapshot when the trial has its second checkpoint."""

    taken = False
    stands = ""  # a file; while it is not there, no rollback is carried out

    def choose_trial_to_run(self, controller: Any) -> Any:
        trials = controller.get_trials()
        second = any(t.checkpoint and t.checkpoint.path.endswith("_000001") for t in trials)
        if second and not self.taken:
            self.taken = True
            controller.checkpoint(force=True, wait=True)
        return super().choose_trial_to_run(controller)

    def _go_back(self, trial: Any, anchor: Any) -> None:
        while self.stands and not Path(self.stands).exists():
            time.sleep(0.05)
        super()._go_back(trial, anchor)


def train(config: dict[str, Any]) -> None:
    """The losses of `config`'s rate; the checkpoint says by which steps and rates it came about."""
    storage, path = Path(config["storage"]), []
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            path = json.loads(Path(folder, "path.json").read_text())
    with (storage / STARTS).open("a") as starts:
        starts.write(json.dumps({"lr": config["lr"], "path": path}) + "\n")
    losses = LOSSES[config["lr"]]
    while len(path) < STEPS:
        step = len(path) + 1
        while (config["lr"], step) == config["stand"] and not (storage / SECOND).exists():
            time.sleep(0.05)
        time.sleep(0.05)
        path.append(config["lr"])
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "path.json").write_text(json.dumps(path))
            tune.report(
                {"loss": losses[min(step, len(losses)) - 1]},
                checkpoint=tune.Checkpoint.from_directory(folder),
            )


def main(address: str, place: str, moment: str) -> None:
    """Begin the sweep, or go on with it."""
    storage = Path(place)
    ray.init(address=address, log_to_driver=False)
    folder = str(storage / NAME)
    if tune.Tuner.can_restore(folder):
        (storage / SECOND).touch()
        result = tune.Tuner.restore(folder, train).fit()[0]
        (storage / "outcome.json").write_text(json.dumps(result.metrics, default=str))
        return
    scheduler = OneSnapshot(patience=2, max_rollbacks=2)
    scheduler.stands = str(storage / SECOND) if moment == "decided" else ""
    tune.Tuner(
        train,
        param_space={"lr": 1.0, "storage": place, "stand": STANDS.get(moment)},
        tune_config=tune.TuneConfig(metric="loss", mode="min", scheduler=scheduler),
        run_config=tune.RunConfig(name=NAME, storage_path=place, verbose=0),
    ).fit()


if __name__ == "__main__":
    main(*sys.argv[1:])
