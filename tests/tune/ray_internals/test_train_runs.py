"""Ray Train V2 inside Tune trials: two real workers each, judged, stopped, freed and found."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune

from tune_stoppers import BoundASHAScheduler, PatienceStopper, best_state, best_states
from tune_stoppers.tune.ray_internals.train_runs import has_train_workers

pytestmark = [
    pytest.mark.usefixtures("ray_session"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of Ray Train
]


def train(config: dict[str, Any]) -> None:
    """A Tune function that leads two workers; both losses enter the one that is reported."""
    import ray.train
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    from tune_stoppers.tune.ray_internals.train import FreeWorkers

    def work(config: dict[str, Any]) -> None:
        import torch
        import torch.distributed

        rank = ray.train.get_context().get_world_rank()
        for step in range(1, 200):
            total = torch.tensor(config["loss"] * (rank + 1))
            torch.distributed.all_reduce(total)
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "loss.json").write_text(json.dumps(total.item()))
                checkpoint = ray.train.Checkpoint.from_directory(folder) if rank == 0 else None
                ray.train.report({"loss": total.item(), "step": step}, checkpoint=checkpoint)
            time.sleep(0.2)

    TorchTrainer(
        work,
        train_loop_config=config,
        scaling_config=ray.train.ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}),
        run_config=ray.train.RunConfig(
            name="train_" + tune.get_context().get_trial_id(),
            storage_path=config["storage"],
            callbacks=[TuneReportCallback(), FreeWorkers()],
        ),
    ).fit()


@pytest.mark.stress
def test_train_runs_are_judged_stopped_freed_and_found(tmp_path: Path) -> None:
    """Stoppers and schedulers decide on a Train run's metrics, and its workers go with the trial.

    Two trials cannot run at once here: that the second one starts shows that the first one's
    workers are gone.
    """
    results = tune.Tuner(
        tune.with_resources(train, {"cpu": 0.5}),
        param_space={"loss": tune.grid_search([1.0, 2.0]), "storage": str(tmp_path)},
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            scheduler=BoundASHAScheduler(100, grace_period=1, reduction_factor=2, time_attr="step"),
            max_concurrent_trials=1,
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=str(tmp_path),
            stop=PatienceStopper("loss", "min", patience=2, time_attr="step"),
            verbose=0,
        ),
    ).fit()
    first, second = (result.metrics or {} for result in results)
    assert (first["loss"], first["step"]) == (3.0, 3)  # 1 from rank 0, 2 from rank 1
    assert "2 of 2" in first["stop_reason"]
    assert (second["loss"], second["step"]) == (6.0, 1)
    assert "BoundASHAScheduler" in second["stop_reason"]
    assert has_train_workers(first)

    frame = best_states(results.experiment_path, "loss", "min", time_attr="step")
    assert frame["status"].tolist() == ["TERMINATED", "TERMINATED"]
    assert frame["checkpoint_value"].tolist() == [3.0, 6.0]
    best = best_state(results, "loss", "min", time_attr="step")
    assert best.step == 1
    assert json.loads(Path(best.checkpoint, "loss.json").read_text()) == 3.0

    deadline = time.monotonic() + 120
    while ray.available_resources().get("CPU") != 2.0 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert ray.available_resources().get("CPU") == 2.0


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"loss": 1.0, "checkpoint_path": "/s/train/checkpoint_1"}, True),
        ({"checkpoint_path": "/s/train/checkpoint_1", "checkpoint_dir_name": None}, True),
        ({"checkpoint_path": "/mine", "checkpoint_dir_name": "checkpoint_000001"}, False),
        ({"loss": 1.0, "checkpoint_dir_name": None}, False),
    ],
)
def test_train_runs_are_told_by_their_reports(result: dict[str, Any], expected: bool) -> None:
    """A checkpoint that Ray Train keeps and Tune does not know is the sign."""
    assert has_train_workers(result) is expected
