"""Trials that break in every way that a user's code can, and sweeps of them.

A trial's `kind` says what is wrong with it. Those of `ODD` report a loss like any healthy one, as
another type; those of `NONFINITE` and `SILENT` report nothing that a rule could compare; the others
report sound losses until something happens, and `TRAP` where a report is not to count.
"""

import json
import math
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.logger import JsonLoggerCallback

from tune_stoppers import BudgetStopper

STEPS = 8
TRAP = -100.0  # a loss that would beat every other
LATER = 4  # the step that a trial whose time runs backwards begins with
BREAKS_AT = 3  # after the report of that step
FLOORS = {f"healthy {number}": floor for number, floor in enumerate((0.9, 0.1, 0.6, 0.3))}
HEALTHY = tuple(FLOORS)
ODD: dict[str, Callable[[float], Any]] = {
    "numpy": np.float32,
    "array of one": lambda loss: np.array([loss]),
    "huge": lambda loss: 10**300,
}
NONFINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
UNREADABLE: dict[str, Any] = {
    "string": str(TRAP),
    "none": None,
    "array": np.full(3, TRAP),
    "list": [TRAP],
}
SILENT = (*UNREADABLE, "other metrics", "no time", "nothing")
FAILING = ("raises", "killed", "torch")  # each time they are tried; a tensor Ray refuses
RETRIED = "killed once"
HANGS = "hangs"
KINDS = (
    *HEALTHY,
    *ODD,
    *NONFINITE,
    *SILENT,
    RETRIED,
    "returns early",
    "backwards",
    "twice",
    "wide",
    *FAILING,
    HANGS,
)


def sound(kind: str, step: float) -> float:
    """A trial's loss as a float: a function of the trial and the step alone."""
    loss = FLOORS.get(kind, 0.5) + 1 / step
    return float(np.asarray(ODD[kind](loss)).item()) if kind in ODD else loss


def misbehave(config: dict[str, Any]) -> None:
    """Report the losses of `STEPS` steps, with whatever is wrong with `config["kind"]`."""
    kind = config["kind"]
    if kind == "nothing":
        return
    done = _restored()
    if kind == "backwards" and done:
        done = max(done, LATER)  # to report a lower step now would be what a restart does
    for step in range(done + 1, STEPS + 1):
        if step == BREAKS_AT + 1:
            if kind == "returns early":
                return
            _break(kind, Path(config["folder"], "killed once"))
        for metrics in _reports(kind, step, config["width"]):
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "step.json").write_text(json.dumps(step))
                tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))


def _restored() -> int:
    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        return int(json.loads(Path(folder, "step.json").read_text()))


def _reports(kind: str, step: int, width: int) -> Iterator[dict[str, Any]]:
    """What a trial reports at a step."""
    loss = FLOORS.get(kind, 0.5) + 1 / step
    strange = NONFINITE | UNREADABLE
    if kind in ODD:
        yield {"loss": ODD[kind](loss), "step": step}
    elif kind in strange:
        yield {"loss": strange[kind], "step": step}
    elif kind == "torch":
        import torch  # slow: by the one trial that needs it

        yield {"loss": torch.tensor(loss), "step": step}
    elif kind == "other metrics":
        yield {"accuracy": TRAP, "step": step}
    elif kind == "no time":
        yield {"loss": TRAP}
    elif kind == "backwards" and step <= LATER:
        yield {
            "loss": sound(kind, LATER) if step == 1 else TRAP,
            "step": LATER + 1 - step,
        }
    elif kind == "wide" and step == 2:
        yield {"loss": loss, "step": step} | {f"metric {n}": n / 7 for n in range(width)}
    else:
        yield {"loss": loss, "step": step}
    if kind == "twice":
        yield {"loss": TRAP, "step": step}


def _break(kind: str, marker: Path) -> None:
    if kind == "raises":
        raise RuntimeError("broken on purpose")
    if kind == "killed" or (kind == RETRIED and not marker.exists()):
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == HANGS:
        threading.Event().wait()


@dataclass
class WhenQuiet(tune.Callback):
    """Makes the file `path` once nothing but what never ends by itself is left running."""

    path: Path
    endless: tuple[str, ...]
    steps: int = 0  # of the controller, since something else ran

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Ray's call at each turn of its loop."""
        self.steps = self.steps + 1 if all(self._is_done(trial) for trial in trials) else 0
        if self.steps >= 20:
            self.path.touch()

    def _is_done(self, trial: Trial) -> bool:
        if trial.status not in (Trial.PENDING, Trial.RUNNING):
            return True
        if trial.config["kind"] == HANGS:
            return bool((trial.last_result or {}).get("step") == BREAKS_AT)
        return trial.config["kind"] in self.endless and trial.num_failures >= 3


@dataclass
class Sundial:
    """A clock that stands still until the file `path` is there, and then it is late."""

    path: Path

    def __call__(self) -> float:
        return 1e6 if self.path.exists() else 0.0


def run_sweep(
    folder: Path,
    scheduler: Any = None,
    stopper: Any = None,
    *,
    max_failures: int = 0,
    kinds: tuple[str, ...] = KINDS,
    width: int = 10_000,
) -> str:
    """A sweep with a trial of each kind; its experiment's folder.

    A budget of the sweep's time ends what never ends by itself, once all else is over.
    """
    late = folder / "late"
    budget = BudgetStopper(sweep_seconds=1)
    budget.use_clock(Sundial(late))
    endless = FAILING if max_failures < 0 else ()
    tune.Tuner(
        tune.with_resources(misbehave, {"cpu": 0.5}),
        param_space={
            "kind": tune.grid_search(list(kinds)),
            "lr": 1.0,
            "folder": str(folder),
            "width": width,
        },
        tune_config=tune.TuneConfig(scheduler=scheduler, reuse_actors=True),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=str(folder),
            stop=budget if stopper is None else stopper | budget,
            failure_config=tune.FailureConfig(max_failures=max_failures),
            callbacks=[WhenQuiet(late, endless), JsonLoggerCallback()],
            verbose=0,
        ),
    ).fit()
    return str(folder / "sweep")
