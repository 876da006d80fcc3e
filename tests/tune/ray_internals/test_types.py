"""The Protocols of what is taken from Ray: Ray's own classes and the replay's have every member."""

from collections.abc import Iterator
from inspect import get_annotations
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ray.train._internal.session import _TrainingResult
from ray.train._internal.storage import StorageContext
from ray.tune import Checkpoint, PlacementGroupFactory, RunConfig, TuneConfig, Tuner
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import SearchGenerator
from ray.tune.search.basic_variant import BasicVariantGenerator

from tune_stoppers.backtest.cluster import Cluster
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.tune.ray_internals import types

INNER = {"_is_protocol", "_is_runtime_protocol", "_abc_impl"}  # of Protocols, not theirs


def members(protocol: type) -> Iterator[tuple[str, bool]]:
    """What a Protocol asks for, with all that it extends, and whether it is a method."""
    for base in protocol.__mro__:
        if base.__module__ == types.__name__:
            asked = {**get_annotations(base), **vars(base)}
            for name, what in asked.items():
                if not name.startswith("__") and name not in INNER and not isinstance(what, dict):
                    yield name, callable(what) and name in vars(base)


def lacks(protocol: type, given: object) -> list[str]:
    """The members that `given` lacks, or has of the other kind."""
    return [
        name
        for name, is_method in members(protocol)
        if not hasattr(given, name) or (is_method and not callable(getattr(given, name)))
    ]


def result_in(folder: Path) -> Any:
    return _TrainingResult(Checkpoint(str(folder)), {"training_iteration": 1})


def trial_in(folder: Path) -> Trial:
    storage = StorageContext(
        storage_path=str(folder), experiment_dir_name="exp", trial_dir_name="t"
    )
    return Trial("t", stub=True, storage=storage)


def test_members_are_all_that_a_protocol_asks_for() -> None:
    """Attributes, properties and methods, its own and those that it extends."""
    asked = dict(members(types.KeepingManager))
    assert asked == {
        "best_checkpoint_results": False,
        "latest_checkpoint_result": False,
        "checkpoint_config": False,
        "_checkpoint_config": False,
        "_checkpoint_results": False,
        "_latest_checkpoint_result": False,
        "register_checkpoint": True,
        "_get_checkpoint_score": True,
    }
    assert "metrics" in lacks(types.CheckpointResult, object())


def test_rays_trial_has_what_is_taken_of_it(ray_session: None, tmp_path: Path) -> None:
    """And so have the objects that it leads to."""
    trial, result = trial_in(tmp_path), result_in(tmp_path)
    assert not lacks(types.StoredTrial, trial)
    assert not lacks(types.CountingStorage, trial.storage)
    assert not lacks(types.CachedMetadata, trial.run_metadata)
    assert not lacks(types.KeepingManager, trial.run_metadata.checkpoint_manager)
    assert not lacks(types.CheckpointResult, result)
    assert not lacks(types.Checkpoint, result.checkpoint)
    assert not lacks(types.PlacementGroupFactory, PlacementGroupFactory([{"CPU": 1}]))


@pytest.mark.parametrize("search", [BasicVariantGenerator, SearchGenerator])
def test_rays_searchers_have_what_is_taken_of_them(search: type) -> None:
    """The one for plain samples, and the one around all others."""
    assert not lacks(types.SearchAlgorithm, search)


class Watching(FIFOScheduler):  # type: ignore[misc]  # Ray's is untyped
    """Notes what the controllers and trials that it is handed lack."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, list[str]] = {}

    def _see(self, call: str, controller: Any, trial: Any = None) -> None:
        missing = self.calls.setdefault(call, [])
        missing += lacks(types.ControllerOf, controller)
        missing += lacks(types.SearchAlgorithm, controller.search_alg)
        missing += [] if trial is None else lacks(types.Trial, trial)

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        self._see("add", controller, trial)
        super().on_trial_add(controller, trial)

    def on_trial_result(self, controller: Any, trial: Any, result: Any) -> str:
        self._see("result", controller, trial)
        return str(super().on_trial_result(controller, trial, result))

    def on_trial_complete(self, controller: Any, trial: Any, result: Any) -> None:
        self._see("complete", controller, trial)
        super().on_trial_complete(controller, trial, result)

    def choose_trial_to_run(self, controller: Any) -> Any:
        self._see("choose", controller)
        return super().choose_trial_to_run(controller)


NOTHING_MISSING = {call: [] for call in ("add", "result", "complete", "choose")}


def test_a_real_sweep_hands_them_out(ray_session: None, tmp_path: Path) -> None:
    """In every call of a scheduler's, the controller is wrapped in some."""
    scheduler = Watching()
    Tuner(
        lambda config: {"loss": 1.0},
        tune_config=TuneConfig(scheduler=scheduler),
        run_config=RunConfig(storage_path=str(tmp_path), verbose=0),
    ).fit()
    assert scheduler.calls == NOTHING_MISSING


@pytest.mark.parametrize("stored", [False, True])
def test_a_replay_hands_them_out(tmp_path: Path, stored: bool) -> None:
    """The same, with and without a folder."""
    rows = pd.DataFrame({"trial_id": ["a", "b"], "training_iteration": [1, 1], "loss": [1.0, 2.0]})
    curves = list(Sweep.from_frame(rows, metric="loss", mode="min"))
    scheduler = Watching()
    cluster = Cluster(curves, scheduler, workers=1, folder=tmp_path if stored else None)
    cluster.run()
    assert scheduler.calls == NOTHING_MISSING
    for trial in cluster.trials:
        manager = trial.run_metadata.checkpoint_manager
        assert not lacks(types.RunMetadata, trial.run_metadata)
        assert not lacks(types.CheckpointManager, manager)
        assert manager.latest_checkpoint_result is not None
        assert not lacks(types.CheckpointResult, manager.latest_checkpoint_result)
        assert not lacks(types.Checkpoint, manager.latest_checkpoint_result.checkpoint)
        assert not stored or not lacks(types.Storage, trial.storage)
