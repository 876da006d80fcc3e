"""The private names of Ray that are touched: each test fails when Ray changes one."""

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import ray
from ray import tune
from ray.train._internal.session import _TrainingResult
from ray.train._internal.storage import StorageContext
from ray.tune import Checkpoint, CheckpointConfig, Stopper
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.stopper import CombinedStopper, MaximumIterationStopper, NoopStopper, TimeoutStopper

from tune_stoppers import best_state
from tune_stoppers.experiment.grid import registered_in
from tune_stoppers.tune.ray_internals.controller import (
    ask_for,
    checkpoint_of,
    drop_decision,
    hide_paused,
    is_resetting,
    keep_checkpoint,
    keep_scored,
    members_of,
    next_checkpoint,
    note_reason,
    remind_of,
    request_of,
    resume_from,
    sort_trials,
    stopper_of,
    takes_process,
    write_status,
)


def trial_with(config: CheckpointConfig | None = None) -> Trial:
    return Trial("t", stub=True, checkpoint_config=config)


def save(trial: Trial, folder: Path, step: int, **metrics: Any) -> str:
    """Register a checkpoint as Ray does; its name."""
    name = f"checkpoint_{step:06d}"
    (folder / name).mkdir()
    result = _TrainingResult(
        Checkpoint(str(folder / name)), {"training_iteration": step, **metrics}
    )
    trial.run_metadata.checkpoint_manager.register_checkpoint(result)
    return name


SCORED = {"checkpoint_score_attribute": "loss", "checkpoint_score_order": "min"}
CONFIGS = {
    "nothing is deleted": CheckpointConfig(),
    "one": CheckpointConfig(num_to_keep=1),
    "two": CheckpointConfig(num_to_keep=2),
    "the one of the best score": CheckpointConfig(num_to_keep=1, **SCORED),
    "those of the best score": CheckpointConfig(num_to_keep=3, **SCORED),
    "one by something else": CheckpointConfig(
        num_to_keep=1, checkpoint_score_attribute="training_iteration"
    ),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_kept_checkpoint_outlives_all_that_follow(
    tmp_path: Path, config: CheckpointConfig
) -> None:
    """Whatever `CheckpointConfig` says, and whatever comes with them; the others still go."""
    trial = trial_with(config)
    best = save(trial, tmp_path, 1, loss=1.0)
    losses: list[dict[str, Any]] = [{"loss": 5.0}, {"loss": 0.1}, {}, {"loss": 0.2}, {"loss": 9.0}]
    for step, metrics in enumerate(losses, start=2):
        keep_checkpoint(trial, best)
        newest = save(trial, tmp_path, step, **metrics)
    left = {path.name for path in tmp_path.iterdir()}
    assert {best, newest} <= left
    kept = config.num_to_keep
    assert len(left) == 6 if kept is None else len(left) <= max(kept, 2) + 1
    assert checkpoint_of(trial, best).metrics["training_iteration"] == 1


def test_without_it_ray_deletes_the_best(tmp_path: Path) -> None:
    """Why it is needed; if this fails, it may no longer be."""
    trial = trial_with(CheckpointConfig(num_to_keep=1, **SCORED))
    best = save(trial, tmp_path, 1, loss=1.0)
    save(trial, tmp_path, 2)  # without the metric
    assert not (tmp_path / best).exists()


MISSING: list[list[dict[str, Any]]] = [
    [{"loss": 2.0}, {}, {"loss": 1.0}, {}, {}, {"loss": 3.0}, {}],
    [{}, {"loss": 2.0}, {"loss": 1.0}, {"loss": 4.0}, {"loss": 3.0}],
    [{}, {}, {"loss": 1.0}, {}, {"loss": 4.0}, {}, {"loss": 3.0}],
]


@pytest.mark.parametrize("reports", MISSING, ids=["between and last", "first", "every other"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_checkpoints_without_the_metric_cost_no_best(
    tmp_path: Path, config: CheckpointConfig, reports: list[dict[str, Any]]
) -> None:
    """Of a class trainable, which Ray saves by the iteration whatever it reports."""
    trial = trial_with(config)
    for step, metrics in enumerate(reports, start=1):
        keep_scored(trial, metrics)
        newest = save(trial, tmp_path, step, **metrics)
    left = {path.name for path in tmp_path.iterdir()}
    assert newest in left
    if config.checkpoint_score_attribute == "loss" or config.num_to_keep is None:
        assert "checkpoint_000003" in left


def test_the_name_of_the_next_checkpoint_is_known(tmp_path: Path) -> None:
    """As the trial's process counts before it saves."""
    trial = trial_with()
    trial.storage = StorageContext(
        storage_path=str(tmp_path), experiment_dir_name="exp", trial_dir_name="t"
    )
    for _ in range(2):
        name = next_checkpoint(trial)
        trial.storage._update_checkpoint_index({})
        assert trial.storage.checkpoint_dir_name == name
    trial.storage = None
    assert next_checkpoint(trial) is None


class Scored(tune.Trainable):  # type: ignore[misc]  # Ray's is untyped
    """The first of three reports is the best by its loss, the last by its accuracy."""

    def step(self) -> dict[str, Any]:
        now = self.iteration + 1
        return {"loss": float(now), "accuracy": float(now), "done": now == 3}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        Path(checkpoint_dir, "step").write_text(str(self.iteration))

    def load_checkpoint(self, checkpoint: Any) -> None:
        """It is never resumed."""


def test_results_know_all_registered_checkpoints(ray_session: None, tmp_path: Path) -> None:
    """The newest too, which by Ray's score is none of the best."""
    config = CheckpointConfig(num_to_keep=1, checkpoint_frequency=1, **SCORED)
    results = tune.Tuner(
        Scored,
        run_config=tune.RunConfig(storage_path=str(tmp_path), checkpoint_config=config, verbose=0),
    ).fit()
    found = {name: metrics["loss"] for _, name, metrics in registered_in(results)}
    assert found == {"checkpoint_000000": 1.0, "checkpoint_000002": 3.0}
    best = best_state(results, "accuracy", "max")
    assert (best.step, Path(best.checkpoint, "step").read_text()) == (3, "3")


def test_trials_do_not_share_what_is_changed(tmp_path: Path) -> None:
    """Ray gives every trial the same `CheckpointConfig`, which is the user's."""
    config = CheckpointConfig(num_to_keep=1)
    trial = trial_with(config)
    keep_checkpoint(trial, save(trial, tmp_path, 1))
    assert config.num_to_keep == 1
    assert trial.run_metadata.checkpoint_manager.checkpoint_config.num_to_keep == 2


def test_the_best_may_move_on(tmp_path: Path) -> None:
    """One that is no longer kept is deleted in its turn."""
    trial = trial_with(CheckpointConfig(num_to_keep=1))
    for step in range(1, 6):
        keep_checkpoint(trial, save(trial, tmp_path, step))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint_000004",
        "checkpoint_000005",
    ]


def test_a_checkpoint_is_found_by_name_while_it_exists(tmp_path: Path) -> None:
    """The newest too, and not once its folder is gone."""
    trial = trial_with()
    names = [save(trial, tmp_path, step) for step in (1, 2)]
    steps = [checkpoint_of(trial, name).metrics["training_iteration"] for name in names]
    assert steps == [1, 2]
    assert checkpoint_of(trial, "checkpoint_000003") is None
    (tmp_path / names[0]).rmdir()
    assert checkpoint_of(trial, names[0]) is None


def test_the_newest_is_found_though_its_score_is_the_worst(tmp_path: Path) -> None:
    """Ray's own list of the best leaves it out."""
    trial = trial_with(CheckpointConfig(num_to_keep=2, **SCORED))
    names = [save(trial, tmp_path, step, loss=float(step)) for step in (1, 2, 3)]
    assert checkpoint_of(trial, names[2]).metrics["loss"] == 3.0


def test_a_trial_resumes_from_the_one_chosen(tmp_path: Path) -> None:
    """And its metrics are out of reach of what Ray writes into the trial's last result."""
    trial = trial_with()
    names = [save(trial, tmp_path, step) for step in (1, 2)]
    resume_from(trial, checkpoint_of(trial, names[0]))
    chosen = trial.latest_checkpoint_result  # what Ray restores from
    assert chosen is not None and chosen.checkpoint.path.endswith(names[0])
    chosen.metrics["done"] = True
    assert "done" not in checkpoint_of(trial, names[0]).metrics


def as_in_the_next_snapshot(trial: Trial) -> Trial:
    """The trial as Ray restores it."""
    trial.placement_group_factory = tune.PlacementGroupFactory([{"CPU": 1}])  # a stub has none
    state, metadata = trial.get_json_state()
    again = Trial.from_json_state(state, stub=True)
    again.restore_run_metadata(metadata)
    return again


def test_a_snapshot_has_the_checkpoint_chosen(tmp_path: Path) -> None:
    """Though Ray had all it wanted to know of the trial from before."""
    trial = trial_with()
    best, _ = [save(trial, tmp_path, step) for step in (1, 2)]
    as_in_the_next_snapshot(trial)
    resume_from(trial, checkpoint_of(trial, best))
    assert as_in_the_next_snapshot(trial).checkpoint.path.endswith(best)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_ray_can_be_told_of_a_checkpoint(tmp_path: Path, config: CheckpointConfig) -> None:
    """Of one in the trial's folder; what is saved next is written over none there."""
    trial = trial_with(config)
    trial.storage = StorageContext(
        storage_path=str(tmp_path), experiment_dir_name="exp", trial_dir_name="t"
    )
    folder = tmp_path / "exp" / "t"
    folder.mkdir(parents=True)
    save(trial, folder, 0, loss=2.0)
    for step in (1, 2, 3):
        (folder / f"checkpoint_{step:06d}").mkdir()
    (folder / "checkpoint_of_mine").mkdir()
    as_in_the_next_snapshot(trial)
    forgotten = "checkpoint_000002"
    assert checkpoint_of(trial, forgotten) is None
    told = remind_of(trial, forgotten, {"training_iteration": 7, "loss": 1.0})
    assert told is checkpoint_of(trial, forgotten)
    again = as_in_the_next_snapshot(trial)
    assert again.checkpoint.path == str(folder / forgotten)
    assert again.latest_checkpoint_result.metrics["training_iteration"] == 7  # Ray takes it
    again.storage._update_checkpoint_index({})  # as the trial's process does before it saves
    assert again.storage.checkpoint_fs_path == str(folder / "checkpoint_000004")
    keep_checkpoint(trial, forgotten)
    save(trial, folder, 4, loss=3.0)
    assert (folder / forgotten).is_dir()


def test_combined_stoppers_are_told_apart() -> None:
    """Ray combines a list of them, and `time_budget_s` with any."""
    first, second, clock = NoopStopper(), MaximumIterationStopper(3), TimeoutStopper(9)
    assert list(members_of(first)) == [first]
    combined = CombinedStopper(CombinedStopper(first, second), clock)
    assert list(members_of(combined)) == [first, second, clock]


class Looks(FIFOScheduler):
    """Asks for the stopper wherever Ray hands over a controller."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Stopper] = []

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self.seen.append(stopper_of(tune_controller))

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: Any) -> None:
        self.seen.append(stopper_of(tune_controller))


class Mine(MaximumIterationStopper):  # type: ignore[misc]  # Ray's is untyped
    """A stopper to be recognised."""


def test_a_scheduler_can_see_the_stopper(
    ray_session: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the wrapped controller and of the raw one, without Ray's warning about private names."""
    scheduler = Looks()
    tune.Tuner(
        lambda config: tune.report({"loss": 1.0}),
        tune_config=tune.TuneConfig(scheduler=scheduler),
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0, stop=Mine(5)),
    ).fit()
    assert [type(stopper) for stopper in scheduler.seen] == [Mine, Mine]
    assert "restricted" not in caplog.text


def test_a_replay_hides_its_stopper() -> None:
    """Its trials cannot go back anyway."""
    assert isinstance(stopper_of(object()), NoopStopper)


def test_a_stopped_trials_status_can_be_marked_for_the_next_snapshot() -> None:
    """Ray's controller still has the call that `write_status` makes; a replay has none."""
    assert callable(TuneController._mark_trial_to_checkpoint)
    marked: list[Any] = []
    write_status(SimpleNamespace(_mark_trial_to_checkpoint=marked.append), "trial")
    assert marked == ["trial"]
    write_status(SimpleNamespace(), "trial")


def test_a_reason_reaches_rays_next_snapshot(tmp_path: Path) -> None:
    """Also of a trial whose part in it Ray had made ready before."""
    trial = Trial("__fake", stub=True, _setup_default_resource=False)
    trial.run_metadata.last_result = {"loss": 1.0, "trial_id": trial.trial_id, "config": {}}
    trial.run_metadata.get_json_state()
    trial.last_result["mine"] = "forgotten"
    assert "forgotten" not in trial.run_metadata.get_json_state()
    note_reason(trial, "it was the worst")
    assert "it was the worst" in trial.run_metadata.get_json_state()


class StaleStop(FIFOScheduler):
    """Adds trials as a restore does whose snapshot was taken before a stop; drops one of these."""

    def on_trial_add(self, controller: Any, trial: Trial) -> None:
        controller._tune_controller._cached_trial_decisions[trial.trial_id] = "STOP"
        if trial.config["drop"]:
            drop_decision(controller, trial)


def saves(config: dict[str, Any]) -> None:
    """Three reports, each with a checkpoint."""
    for step in (1, 2, 3):
        with tempfile.TemporaryDirectory() as folder:
            tune.report({"step": step}, checkpoint=tune.Checkpoint.from_directory(folder))


def test_a_decision_of_a_killed_driver_can_be_dropped(ray_session: None, tmp_path: Path) -> None:
    """Ray carries it out at the trial's first checkpoint otherwise."""
    results = tune.Tuner(
        saves,
        param_space={"drop": tune.grid_search([False, True])},
        tune_config=tune.TuneConfig(scheduler=StaleStop()),
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    ).fit()
    assert [result.metrics["step"] for result in results] == [1, 3]


class Backwards(FIFOScheduler):
    """Turns the order of the trials round, and looks who would get a process that is left."""

    def __init__(self) -> None:
        super().__init__()
        self.turned, self.started = False, list[int]()
        self.offers: set[tuple[str, bool]] = set()
        self.kinds: set[type] = set()

    def choose_trial_to_run(self, controller: Any) -> Any:
        if not self.turned:
            self.turned = True
            sort_trials(controller, lambda t: t.config["i"], lambda t: -t.config["i"])
        for trial in controller.get_trials():
            self.offers.add((trial.status, takes_process(controller, trial)))
        self.kinds.add(type(controller._tune_controller._resetting_trials))
        return None  # whatever is pending starts in the order of the list

    def on_trial_result(self, controller: Any, trial: Trial, result: Any) -> str:
        self.started.append(trial.config["i"])
        return str(super().on_trial_result(controller, trial, result))


@pytest.mark.parametrize("reuse", [True, False])
def test_a_process_that_is_left_is_seen_and_the_order_can_be_changed(
    ray_session: None, tmp_path: Path, reuse: bool
) -> None:
    """Under `reuse_actors` alone; and what is pending starts in the order asked for."""
    scheduler = Backwards()
    every = ray.cluster_resources()["CPU"]
    tune.Tuner(
        tune.with_resources(lambda config: tune.report({"loss": 1.0}), {"cpu": every}),
        param_space={"i": tune.grid_search([0, 1, 2])},
        tune_config=tune.TuneConfig(scheduler=scheduler, reuse_actors=reuse),
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    ).fit()
    assert ((Trial.PENDING, True) in scheduler.offers) == reuse
    assert scheduler.kinds == {set}  # of trials, as `is_resetting` has it
    if not reuse:  # else Ray takes any for a process that nobody was named for
        assert scheduler.started == [2, 1, 0]


def test_a_replay_keeps_no_process_and_one_order() -> None:
    """It has none of these names."""
    trial = trial_with()
    view = SimpleNamespace(get_trials=lambda: [2, 1])
    assert not takes_process(view, trial)
    assert not is_resetting(view, trial)
    sort_trials(view, lambda trial: trial, lambda trial: trial)


def test_a_trial_that_is_being_reset_is_told_apart() -> None:
    """It has a process that was left, and takes no second one."""
    one, other = trial_with(), trial_with()
    cache = SimpleNamespace(has_cached_object=lambda resources: True)
    view = SimpleNamespace(_resetting_trials={one}, _actor_cache=cache)
    assert is_resetting(view, one) and not takes_process(view, one)
    assert takes_process(view, other) and not is_resetting(view, other)


def test_paused_trials_are_hidden_from_a_scheduler_around_ours() -> None:
    """For one call: Ray makes the wrapper that is changed anew for the next."""
    runs, waits = trial_with(), trial_with()
    runs.set_status(Trial.RUNNING)
    waits.set_status(Trial.PAUSED)
    controller = Mock(get_live_trials=lambda: {runs, waits})
    view = TuneController._wrapped(controller)
    hide_paused(view)
    assert view.get_live_trials() == {runs}
    assert TuneController._wrapped(controller).get_live_trials() == {runs, waits}


def test_a_replays_view_is_left_alone() -> None:
    """It is one and the same for all calls."""
    view = SimpleNamespace(get_live_trials="as it was")
    hide_paused(view)
    assert view.get_live_trials == "as it was"


def test_what_a_trial_asks_for_can_be_changed() -> None:
    """Ray's next snapshot has it too; one whose request is that already, a replay's, is left."""
    trial, more = trial_with(), tune.PlacementGroupFactory([{"CPU": 2}])
    ask_for(trial, more)
    assert trial.placement_group_factory == more
    assert (
        Trial.from_json_state(trial.get_json_state()[0], stub=True).placement_group_factory == more
    )
    assert request_of(trial) == more
    ask_for(SimpleNamespace(), None)
