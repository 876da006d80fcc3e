"""The replay calls schedulers and stoppers as Ray's own controller does, report by report."""

import json
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ray import tune
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    TrialScheduler,
)
from ray.tune.stopper import (
    CombinedStopper,
    MaximumIterationStopper,
    NoopStopper,
    Stopper,
    TrialPlateauStopper,
)

from tune_stoppers import PromotionASHAScheduler
from tune_stoppers.backtest.process import Faults
from tune_stoppers.backtest.replay import replay
from tune_stoppers.recorded.sweep import Sweep

CALLS: list[tuple] = []  # both sides note here: Tune and replay copy what they are given


def key(trial) -> int:
    return trial.config["number"]


def seen(result: dict) -> tuple:
    """What a rule may read in a flat result: everything that does not depend on the machine."""
    names = (
        "training_iteration",
        "loss",
        "eval/aux",
        "config/number",
        "done",
        "iterations_since_restore",
        "checkpoint_dir_name",
        "should_checkpoint",
    )
    return tuple(result.get(name) for name in names)


class NotingScheduler(TrialScheduler):
    """Passes every call on to `inner` and notes it, with the answer and the trial's state."""

    def __init__(self, inner: TrialScheduler) -> None:
        super().__init__()
        self.inner = inner

    @property
    def metric(self):
        return self.inner.metric

    def set_search_properties(self, metric, mode, **spec):
        return self.inner.set_search_properties(metric, mode, **spec)

    def on_trial_add(self, controller, trial):
        self.inner.on_trial_add(controller, trial)
        CALLS.append(("add", key(trial), trial.status))

    def on_trial_result(self, controller, trial, result):
        before = trial.last_result.get("training_iteration")
        kept = trial.checkpoint and Path(trial.checkpoint.path).name
        decision = self.inner.on_trial_result(controller, trial, result)
        CALLS.append(("result", key(trial), seen(result), before, kept, decision))
        return decision

    def on_trial_complete(self, controller, trial, result):
        CALLS.append(("complete", key(trial), seen(result), trial.status))
        self.inner.on_trial_complete(controller, trial, result)

    def on_trial_remove(self, controller, trial):
        CALLS.append(("remove", key(trial), trial.status))
        self.inner.on_trial_remove(controller, trial)

    def on_trial_error(self, controller, trial):
        CALLS.append(("error", key(trial), trial.status))
        self.inner.on_trial_error(controller, trial)

    def choose_trial_to_run(self, controller):
        trial = self.inner.choose_trial_to_run(controller)
        if trial is not None and trial.status == "PAUSED":
            CALLS.append(("unpause", key(trial)))
        return trial

    def debug_string(self):
        return ""


class NotingStopper(Stopper):
    """Passes every call on to `inner` and notes it: the nested result, and the verdict."""

    def __init__(self, inner: Stopper) -> None:
        self.inner = inner

    def __call__(self, trial_id, result):
        verdict = self.inner(trial_id, result)
        number, aux = result["config"]["number"], result["eval"]["aux"]
        CALLS.append(
            ("stopper", number, result["training_iteration"], aux, result["done"], verdict)
        )
        return verdict

    def stop_all(self):
        return self.inner.stop_all()


@dataclass
class Case:
    """A sweep and what it is run under; the scheduler and the stopper are made anew each time."""

    sweep: Sweep
    scheduler: Callable[[], TrialScheduler]
    stopper: Callable[[], Stopper]
    checkpoint_every: int
    crash: tuple[int, int] | None = None  # a trial, and its reports before it crashes once

    def crash_drawn(self) -> dict:
        """Options under which the replay draws just that failure."""
        rate = 0.1
        for seed in range(10_000):
            dice = Faults(failure_rate=rate, seed=seed).dice(len(self.sweep))
            draws = [[die.roll() is not None for _ in range(12)] for die in dice]
            fails = {(trial, at) for trial, row in enumerate(draws) for at in range(12) if row[at]}
            if fails == {self.crash}:
                return {"failure_rate": rate, "seed": seed}
        raise AssertionError("no seed draws that crash alone")


def small_sweep(*lengths: int) -> Sweep:
    """One trial per length; the second is flat from its first report on."""
    random = np.random.default_rng(5)
    levels = [3.0, 1.0, 2.0, 4.0]
    rows = []
    for number, (length, level) in enumerate(zip(lengths, levels, strict=False)):
        for step in range(1, length + 1):
            shape = 0.0 if number == 1 else 2.0 / step + float(random.normal(0, 0.2))
            rows.append(
                {
                    "trial_id": str(number),
                    "training_iteration": step,
                    "loss": level + shape,
                    "eval/aux": float(step),
                    "config/number": number,
                }
            )
    return Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min")


def play_back(sweep: Sweep, checkpoint_every: int, crash: tuple[int, int] | None, marks: Path):
    """A function trainable that reports what the sweep recorded, and crashes once if told to:
    `crash` is a trial and the reports that it makes before."""
    curves = [[row["loss"] for row in curve.rows()] for curve in sweep]
    mark = str(marks / "crashed")

    def trainable(config):
        step = 0
        checkpoint = tune.get_checkpoint()
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                step = json.loads(Path(folder, "step.json").read_text())
        for loss in curves[config["number"]][step:]:
            if (config["number"], step) == crash and not Path(mark).exists():
                Path(mark).touch()
                raise RuntimeError("crashed as told")
            step += 1
            report = {"loss": loss, "eval": {"aux": float(step)}}
            if checkpoint_every and step % checkpoint_every == 0:
                with tempfile.TemporaryDirectory() as folder:
                    Path(folder, "step.json").write_text(json.dumps(step))
                    tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))
            else:
                tune.report(report)

    return trainable


def real(case: Case, folder: Path) -> list[tuple]:
    """What Ray's controller does with it."""
    CALLS.clear()
    trainable = play_back(case.sweep, case.checkpoint_every, case.crash, folder)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 2}),  # all there are: one trial at a time
        param_space={"number": tune.grid_search(list(range(len(case.sweep))))},
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            scheduler=NotingScheduler(case.scheduler()),
            reuse_actors=False,
        ),
        run_config=tune.RunConfig(
            storage_path=str(folder),
            name="real",
            stop=NotingStopper(case.stopper()),
            failure_config=tune.FailureConfig(max_failures=1),
            verbose=0,
        ),
    )
    tuner.fit()
    return list(CALLS)


def replayed(case: Case) -> list[tuple]:
    """What the replay does with it."""
    CALLS.clear()
    replay(
        case.sweep,
        NotingScheduler(case.scheduler()),
        NotingStopper(case.stopper()),
        workers=1,
        order="recorded",
        checkpoint_every=case.checkpoint_every,
        max_failures=1,
        **(case.crash_drawn() if case.crash else {}),
    )
    return list(CALLS)


def plateau_or_seven() -> Stopper:
    return CombinedStopper(
        TrialPlateauStopper("loss", std=1e-6, num_results=3, grace_period=3),
        MaximumIterationStopper(7),
    )


# Each trial of the real side is a process that imports Ray: few trials, many properties.
CASES = {
    "promotions, held and paused trials": Case(
        small_sweep(9, 9, 5, 9),
        lambda: PromotionASHAScheduler(8, 2, 2, pen=2, resume_share=1e9, metric="loss", mode="min"),
        NoopStopper,
        checkpoint_every=1,
    ),
    "FIFO with stoppers, and a crash between two checkpoints": Case(
        small_sweep(9, 9, 5), FIFOScheduler, plateau_or_seven, checkpoint_every=2, crash=(0, 3)
    ),
    "ASHA with a stopper, every checkpoint": Case(
        small_sweep(9, 9, 4),
        lambda: ASHAScheduler(max_t=8, grace_period=2, reduction_factor=2),
        lambda: MaximumIterationStopper(7),
        checkpoint_every=1,
    ),
    "median rule that pauses, also before the first checkpoint": Case(
        small_sweep(6, 6, 6),
        lambda: MedianStoppingRule(
            time_attr="training_iteration", grace_period=2, min_samples_required=1
        ),
        NoopStopper,
        checkpoint_every=3,
    ),
    "HyperBand, paused after its checkpoint": Case(
        small_sweep(30, 30, 30, 30),
        lambda: HyperBandScheduler(max_t=30, reduction_factor=10),
        NoopStopper,
        checkpoint_every=2,
    ),
}


LONG = (
    "median rule that pauses, also before the first checkpoint",
    "HyperBand, paused after its checkpoint",
    "ASHA with a stopper, every checkpoint",
)
NAMES = [pytest.param(name, marks=pytest.mark.stress if name in LONG else ()) for name in CASES]


@pytest.mark.parametrize("name", NAMES)
def test_replay_makes_the_calls_that_ray_makes(name, ray_session, tmp_path):
    """Every call to scheduler and stopper, what it was shown and what it answered: all equal.
    Where no trial came back, the folder that Ray wrote holds the reports that were shown."""
    case = CASES[name]
    played = replayed(case)
    assert len(played) > 15
    assert real(case, tmp_path) == played
    if not any(call[-1] == "PAUSE" or call[0] == "error" for call in played):  # else rows are lost
        shown = Counter(call[1] for call in played if call[0] == "stopper" and not call[4])
        written = Sweep.from_ray(tmp_path / "real", metric="loss", mode="min")
        assert {curve.config["number"]: len(curve) for curve in written} == shown
