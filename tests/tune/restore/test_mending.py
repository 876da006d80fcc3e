"""A restore of Ray's own, of a folder that a kill has left: what Ray finds there."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest
from ray import tune
from ray.cloudpickle import dumps
from ray.train._internal.storage import StorageContext
from ray.tune import CheckpointConfig
from ray.tune.experiment import Trial

from tune_stoppers import (
    AnyOf,
    AutoScheduler,
    BoundASHAScheduler,
    FreezeThawScheduler,
    PatienceStopper,
    PromotionASHAScheduler,
    RollbackScheduler,
    checkpoint_config,
)
from tune_stoppers.experiment.snapshots import newest_state
from tune_stoppers.tune.ray_internals.controller import (
    as_registered,
    part_of,
    registered,
    restoring,
)
from tune_stoppers.tune.restore.mending import RestorableCheckpointConfig, mend_trial

SESSION, LATER = "2027-01-15_08-00-00", "2027-01-15_09-00-00"
SCORED = {"checkpoint_score_attribute": "loss", "checkpoint_score_order": "min"}
patience = PatienceStopper("loss", "min")
# one of ours in the sweep is enough: keywords of TuneConfig, and of RunConfig
OURS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "AutoScheduler": ({"scheduler": AutoScheduler(9)}, {}),
    "BoundASHAScheduler": ({"scheduler": BoundASHAScheduler(9)}, {}),
    "PromotionASHAScheduler": ({"scheduler": PromotionASHAScheduler(9)}, {}),
    "FreezeThawScheduler": ({"scheduler": FreezeThawScheduler(9)}, {}),
    "RollbackScheduler": ({"scheduler": RollbackScheduler()}, {}),
    "a stopper": ({}, {"stop": patience}),
    "stoppers": ({}, {"stop": AnyOf(tune.stopper.MaximumIterationStopper(9), patience)}),
    "checkpoint_config alone": ({}, {"checkpoint_config": checkpoint_config("loss", "min")}),
}
Sweep = Callable[..., Path]


def train(config: dict[str, Any]) -> None:
    """Is not run here."""


def name(number: int) -> str:
    return f"checkpoint_{number:06d}"


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Makes an experiment whose snapshot knows a trial's checkpoints 0 to 3, of which 3 is gone."""

    def make(searching: dict[str, Any], running: dict[str, Any], status: str = "RUNNING") -> Path:
        run = {"name": "sweep", "storage_path": str(tmp_path), "verbose": 0} | running
        tune.Tuner(
            train,
            tune_config=tune.TuneConfig(metric="loss", mode="min", **searching),
            run_config=tune.RunConfig(**run),
        )
        trial = trial_in(tmp_path)
        trial.status = status
        for number in range(4):
            save(trial, number)
        save(trial, 5, known=False)
        shutil.rmtree(Path(trial.storage.trial_fs_path, name(3)))
        write_snapshot(tmp_path / "sweep", SESSION, trial)
        return tmp_path / "sweep"

    return make


def trial_in(storage: Path) -> Trial:
    config = CheckpointConfig(num_to_keep=2, **SCORED)
    trial = Trial("train", stub=True, trial_id="a0000_00000", checkpoint_config=config)
    trial.relative_logdir = "train_a0000_00000_0_2027-01-15_08-00-00"
    trial.storage = StorageContext(
        storage_path=str(storage), experiment_dir_name="sweep", trial_dir_name=trial.relative_logdir
    )
    return trial


def save(trial: Trial, number: int, known: bool = True) -> None:
    """Checkpoint `number`, of a trial that gets worse, and whether Ray's snapshot knows it."""
    path = Path(trial.storage.trial_fs_path, name(number))
    path.mkdir(parents=True)
    (path / "weights").write_text("x")
    os.utime(path / "weights", (1_800_000_000 + number,) * 2)
    if known:
        metrics = {"training_iteration": number + 1, "loss": float(number)}
        trial.on_checkpoint(as_registered(trial.storage, name(number), metrics))


def write_snapshot(root: Path, session: str, *trials: Trial) -> None:
    state = {"trial_data": [t.get_json_state() for t in trials], "runner_data": {}, "stats": {}}
    (root / f"experiment_state-{session}.json").write_text(json.dumps(state))
    (root / f"basic-variant-state-{session}.json").write_bytes(dumps({"of": session}))


def known_to_ray(root: Path) -> tuple[str | None, int]:
    """What Ray's snapshot has the trial start from, and how far it has counted its checkpoints."""
    _, data = newest_state(pafs.LocalFileSystem(), str(root))
    trial, run = json.loads(data)["trial_data"][0]
    newest = part_of(run, "checkpoint_manager").latest_checkpoint_result
    count = part_of(trial, "storage").current_checkpoint_index
    return newest and Path(newest.checkpoint.path).name, count


@pytest.mark.parametrize("ours", OURS)
def test_a_trial_continues_from_the_newest_checkpoint_that_is_there(
    sweep: Sweep, ours: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever of ours the sweep has; what it saves next is written over none."""
    root = sweep(*OURS[ours])
    assert known_to_ray(root) == (name(3), 3)
    with caplog.at_level(logging.WARNING, "tune_stoppers"):
        tune.Tuner.restore(str(root), train)
    assert known_to_ray(root) == (name(5), 5)
    (told,) = caplog.messages
    assert "a0000_00000 from checkpoint_000005 instead of checkpoint_000003" in told


def test_without_one_of_ours_ray_is_left_alone(sweep: Sweep) -> None:
    root = sweep({}, {})
    tune.Tuner.restore(str(root), train)
    assert known_to_ray(root) == (name(3), 3)


@pytest.mark.parametrize(("status", "start"), [("ERROR", name(5)), ("TERMINATED", name(3))])
def test_a_trial_that_failed_may_be_resumed_one_that_ended_is_left(
    sweep: Sweep, status: str, start: str
) -> None:
    root = sweep({}, {"stop": patience}, status)
    tune.Tuner.restore(str(root), train, resume_errored=True)
    assert known_to_ray(root)[0] == start


def test_a_trial_without_any_starts_from_zero(
    sweep: Sweep, caplog: pytest.LogCaptureFixture
) -> None:
    """With `max_failures=-1` Ray would try it for ever."""
    root = sweep({}, {"stop": patience})
    for path in root.glob("train_*/checkpoint_*"):
        shutil.rmtree(path)
    with caplog.at_level(logging.WARNING, "tune_stoppers"):
        tune.Tuner.restore(str(root), train)
    assert known_to_ray(root) == (None, 3)
    assert "a0000_00000 starts from zero" in caplog.text


def test_an_experiment_that_was_moved(sweep: Sweep, tmp_path: Path) -> None:
    root = sweep({}, {"stop": patience})
    moved = root.rename(tmp_path / "elsewhere")
    tune.Tuner.restore(str(moved), train)
    assert known_to_ray(moved) == (name(5), 5)


@pytest.mark.parametrize("ours", OURS)
def test_a_torn_snapshot_gives_way_to_a_whole_one(
    sweep: Sweep, ours: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Here the one of the session before; then trials are looked after as ever."""
    root = sweep(*OURS[ours])
    write_snapshot(root, LATER)
    (root / f"basic-variant-state-{LATER}.json").write_text("")
    with caplog.at_level(logging.WARNING, "tune_stoppers"):
        tune.Tuner.restore(str(root), train)
    assert max(path.name for path in root.glob("*-state-*.json")).endswith(f"{SESSION}.json")
    assert known_to_ray(root) == (name(5), 5)
    assert "is torn" in caplog.messages[0]
    assert "anew" in caplog.messages[0]


def test_a_restore_that_cannot_be_mended_is_left_to_ray(
    sweep: Sweep, caplog: pytest.LogCaptureFixture
) -> None:
    root = sweep({}, {"stop": patience})
    state = root / f"experiment_state-{SESSION}.json"
    state.write_text('{"trial_data": [["{}", "{}"]], "runner_data": {}}')
    with caplog.at_level(logging.WARNING, "tune_stoppers"):
        tune.Tuner.restore(str(root), train)
    assert "could not be looked through" in caplog.text


def test_each_restore_is_seen_to_and_nothing_else_is() -> None:
    assert restoring() is None
    config = checkpoint_config("loss", "min")
    assert isinstance(config, RestorableCheckpointConfig)
    same = CheckpointConfig(num_to_keep=1, **SCORED)
    assert config == same
    assert same == config
    assert config != CheckpointConfig()


def test_two_restores_in_one_process(sweep: Sweep) -> None:
    """The second finds what has gone since the first."""
    root = sweep({}, {"stop": patience})
    tune.Tuner.restore(str(root), train)
    shutil.rmtree(next(root.glob(f"train_*/{name(5)}")))
    tune.Tuner.restore(str(root), train)
    assert known_to_ray(root)[0] == name(1)


def test_a_scheduler_looks_again_when_ray_adds_a_trial(tmp_path: Path) -> None:
    """It may be tried again in the same process, after its checkpoint was deleted by hand."""
    trial = trial_in(tmp_path)
    for number in range(3):
        save(trial, number)
    mend_trial(trial)
    assert trial.checkpoint.path.endswith(name(2))
    shutil.rmtree(trial.checkpoint.path)
    mend_trial(trial)
    assert trial.checkpoint.path.endswith(name(1))
    for result in registered(trial.run_metadata.checkpoint_manager):
        shutil.rmtree(result.checkpoint.path)
    mend_trial(trial)
    assert trial.checkpoint is None
