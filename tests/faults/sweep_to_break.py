"""Sweeps of cheap trials in one process, one after another, to be killed and gone on with.

Usage: python -m tests.faults.sweep_to_break ADDRESS STORAGE NAME...

ADDRESS is that of a Ray, or "local" for one that dies with the driver. A sweep that was begun is
restored; one that has ended, so that STORAGE/NAME.json tells how, is passed over.
"""

import json
import os
import pickle
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import tune
from safetensors.numpy import load_file, save_file

import tune_stoppers as ts
from tune_stoppers import rules

STEPS = 18
STEP_SECONDS = 10.0  # as each step says it took, whatever the machine
BUDGET_STEPS = 13
WEIGHTS = "model.safetensors"

FLOORS = [0.9, 0.0, 0.5, 0.8, 0.2, 0.7, 0.15, 0.05, 0.6, 0.1]
RATES = [0.3, 0.02, 0.1, 0.4, 0.05, 0.2, 0.01, 0.03, 0.15, 0.06]
TROUBLED = [0.3, 1.6, 2.5, 1.1, 3.5]  # above 1 a trial diverges
# every: steps from checkpoint to checkpoint
SMOOTH = [
    {"number": number, "floor": floor, "lr": rate, "every": 3}
    for number, (floor, rate) in enumerate(zip(FLOORS, RATES, strict=True))
]
STEEP = [
    {"number": number, "floor": 0.0, "lr": rate, "every": 1} for number, rate in enumerate(TROUBLED)
]

SCHEDULERS: dict[str, Callable[[], Any]] = {
    "auto": lambda: ts.AutoScheduler(STEPS, grace_period=2),
    "bound": lambda: ts.BoundASHAScheduler(STEPS, grace_period=2),
    "promotion": lambda: ts.PromotionASHAScheduler(STEPS, grace_period=2, pen=4),
    "freeze-thaw": lambda: ts.FreezeThawScheduler(STEPS, grace_period=2),
    "rollback": lambda: ts.RollbackScheduler(3, max_rollbacks=4, lr_key="case/lr"),
    "rule": lambda: ts.RuleScheduler(rules.Patience(4, 0.01)),
    "single": lambda: ts.BoundASHAScheduler(STEPS, grace_period=2),  # one trial at a time
}
STOPPERS = "stoppers"  # Patience and Budget, and no scheduler of ours
NAMES = ["bound", "promotion", "rollback", "rule", STOPPERS]
ALL_NAMES = [*NAMES, "auto", "freeze-thaw"]


def cases(name: str) -> list[dict[str, Any]]:
    """The configurations of a sweep's trials."""
    return STEEP if name == "rollback" else SMOOTH


def after_step(weight: float, rate: float) -> float:
    """Gradient descent on w²."""
    return weight * (1 - 2 * rate)


def weight_at(step: float, rate: float) -> float:
    """After so many steps from w = 1."""
    weight = 1.0
    for _ in range(int(step)):
        weight = after_step(weight, rate)
    return weight


def loss_of(weight: float, floor: float) -> float:
    """What a trial reports."""
    return floor + weight * weight


def train(config: dict[str, Any]) -> None:
    """A curve that is a function of the configuration alone; beyond 10⁹ it fails."""
    with open(config["starts"], "a") as starts:
        starts.write(tune.get_context().get_trial_id() + "\n")
    descend(config["case"], STEPS, lambda step: time.sleep(config["pause"]))


def descend(case: dict[str, Any], steps: int, before: Callable[[int], None]) -> None:
    """Report `steps` steps, and call `before` each; goes on from the trial's checkpoint."""
    step, weight = 0, 1.0
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            step, weight = load_file(Path(folder, WEIGHTS))["state"].tolist()
    while step < steps:
        step, weight = step + 1, after_step(weight, case["lr"])
        loss = loss_of(weight, case["floor"])
        if loss > 1e9:
            raise FloatingPointError(f"the loss is {loss:g}")
        before(step)
        metrics = {"loss": loss, "time_this_iter_s": STEP_SECONDS}
        with tempfile.TemporaryDirectory() as folder:
            tensors = {"state": np.array([step, weight]), "rest": np.zeros(500)}  # some KB
            save_file(tensors, Path(folder, WEIGHTS))
            due = step % case["every"] == 0
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder) if due else None)


def new_sweep(storage: Path, name: str) -> tune.Tuner:
    patience = ts.PatienceStopper("loss", "min", patience=4, min_delta=0.01)
    stop = patience | ts.BudgetStopper(BUDGET_STEPS * STEP_SECONDS)
    space = {
        "case": tune.grid_search(cases(name)),
        "pause": 0.03,
        "starts": str(storage / f"{name}.starts"),
    }
    return tune.Tuner(
        train,
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            scheduler=None if name == STOPPERS else SCHEDULERS[name](),
            max_concurrent_trials=1 if name == "single" else 2,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(storage),
            stop=stop if name == STOPPERS else None,
            verbose=0,
        ),
    )


def endings(results: tune.ResultGrid) -> dict[str, Any]:
    """How the trials of a sweep ended, by their ids."""
    trials = results._experiment_analysis.trials
    return {
        trial.trial_id: {
            "status": trial.status,
            "case": trial.config["case"],
            "step": trial.last_result.get("training_iteration"),
            "reason": trial.last_result.get("stop_reason", ""),
        }
        for trial in trials
    }


def put_tuner_back(folder: Path) -> None:
    """What docs/cluster.md has one do where the kill came while Ray wrote `tuner.pkl`."""
    try:
        pickle.loads((folder / "tuner.pkl").read_bytes())
    except (EOFError, pickle.UnpicklingError):
        shutil.copy(folder / "tune_stoppers" / "tuner.pkl", folder)


def main(address: str, place: str, *names: str) -> None:
    """Run what has not ended."""
    storage = Path(place)
    own = {"num_cpus": 2, "include_dashboard": False} if address == "local" else {}
    ray.init(address=address, log_to_driver=False, **own)
    for name in names:
        outcome, folder = storage / f"{name}.json", storage / name
        if outcome.exists():
            continue
        if tune.Tuner.can_restore(str(folder)):
            put_tuner_back(folder)
            tuner = tune.Tuner.restore(str(folder), train)
        else:
            tuner = new_sweep(storage, name)
        text = json.dumps(endings(tuner.fit()))
        outcome.with_suffix(".part").write_text(text)
        os.replace(outcome.with_suffix(".part"), outcome)


if __name__ == "__main__":
    main(*sys.argv[1:])
