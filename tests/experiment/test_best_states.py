"""Finding the best states of an experiment that a real Ray wrote."""

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs
from ray import tune

from tune_stoppers import PatienceStopper, best_state, best_states, checkpoint_config
from tune_stoppers.experiment.folder import ExperimentError

LOSSES = {
    "saved": [3.0, 1.0, 2.0, 2.5],
    "best unsaved": [3.0, 2.0, 0.5, 2.5],  # the third report comes without a checkpoint
    "diverges": [2.0, math.nan, math.nan, math.nan],
    "nothing finite": [math.nan] * 4,
    "flat": [5.0] * 4,
    "fails": [4.0, 3.5],
}


def play(config: dict[str, Any]) -> None:
    """Report the losses of `config`, each but the third with a checkpoint."""
    for index, loss in enumerate(LOSSES[config["curve"]]):
        if index == 2:
            tune.report({"eval": {"loss": loss}})
            continue
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "loss.json").write_text(json.dumps(loss))
            tune.report({"eval": {"loss": loss}}, checkpoint=tune.Checkpoint.from_directory(folder))
    if config["curve"] == "fails":
        raise RuntimeError("on purpose")


@pytest.fixture(scope="module")
def results(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> tune.ResultGrid:
    return tune.Tuner(
        play,
        param_space={"curve": tune.grid_search(list(LOSSES)), "nested": {"a": 1}},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path_factory.mktemp("results")),
            stop=PatienceStopper("eval/loss", "min", patience=3),
            verbose=0,
        ),
    ).fit()


def row_of(results: Any, curve: str) -> dict[str, Any]:
    frame = best_states(results, "eval/loss", "min")
    (row,) = frame[frame["config/curve"] == curve].to_dict("records")
    return row


def test_best_checkpoint_is_told_apart_from_best_report(results: tune.ResultGrid) -> None:
    """A best report without a checkpoint does not pass for a state that can be restored."""
    row = row_of(results, "best unsaved")
    assert (row["best_step"], row["best_value"]) == (3, 0.5)
    assert (row["checkpoint_step"], row["checkpoint_value"]) == (2, 2.0)
    assert json.loads(Path(row["checkpoint"], "loss.json").read_text()) == 2.0


def test_nan_never_wins(results: tune.ResultGrid) -> None:
    """A trial's best is its best finite value; without one it has none."""
    assert row_of(results, "diverges")["checkpoint_value"] == 2.0
    empty = row_of(results, "nothing finite")
    assert math.isnan(empty["best_value"])
    assert empty["checkpoint"] is None


@pytest.mark.parametrize(
    ("curve", "status", "reason"),
    [("flat", "TERMINATED", "3 of 3"), ("saved", "TERMINATED", None), ("fails", "ERROR", None)],
)
def test_ending_is_told(results: Any, curve: str, status: str, reason: str | None) -> None:
    """Each row says how its trial ended, and why it was stopped."""
    row = row_of(results, curve)
    assert row["status"] == status
    assert (reason in row["reason"]) if reason else (row["reason"] is None)


def test_path_and_results_give_the_same_table(results: tune.ResultGrid) -> None:
    """The folder of an experiment is as good as its ResultGrid; nested configs become columns."""
    by_path = best_states(results.experiment_path, "eval/loss", "min")
    by_results = best_states(results, "eval/loss", "min")
    told = by_path["status"] != "UNKNOWN"  # files do not tell that a function has returned
    assert by_path["status"][told].equals(by_results["status"][told])
    assert set(by_results["status"]) == {"TERMINATED", "ERROR"}
    assert by_path.drop(columns="status").equals(by_results.drop(columns="status"))
    assert set(by_path["config/nested/a"]) == {1}
    by_uri = best_states(Path(results.experiment_path).as_uri(), "eval/loss", "min")
    assert by_uri["checkpoint"].equals(by_path["checkpoint"])


def test_best_state_is_the_best_checkpoint_of_all(results: tune.ResultGrid) -> None:
    """The winner is the best state that exists, with its own config; also the worst for max."""
    best = best_state(results, "eval/loss", "min")
    assert (best.value, best.step, best.config["curve"]) == (1.0, 2, "saved")
    assert best_state(results, "eval/loss", "max").config["curve"] == "flat"
    one = best_state(results, "eval/loss", "min", trial_id=row_of(results, "fails")["trial_id"])
    assert one.value == 3.5


def test_unreported_metric_names_the_reported_ones(results: tune.ResultGrid) -> None:
    """A misspelt metric is one clear error."""
    with pytest.raises(ExperimentError, match=r"has 'eval/los'.*Did you mean 'eval/loss'\?"):
        best_states(results, "eval/los", "min")


def test_what_is_no_experiment_is_refused(tmp_path: Path) -> None:
    """Missing and foreign folders are errors that say so."""
    with pytest.raises(ExperimentError, match="not a folder"):
        best_states(tmp_path / "absent", "loss", "min")
    with pytest.raises(ExperimentError, match="no Ray Tune experiment"):
        best_states(tmp_path, "loss", "min")


def test_torn_result_line_is_left_out(results: Any, tmp_path: Path) -> None:
    """A result file that a crash cut off is read up to there."""
    trial = tmp_path / "trial"
    trial.mkdir()
    (trial / "params.json").write_text("{}")
    (trial / "result.json").write_text(
        '{"trial_id": "a", "loss": 1, "training_iteration": 1}\n{"tr'
    )
    frame = best_states(tmp_path, "loss", "min")
    assert frame["best_value"].tolist() == [1.0]
    assert frame["status"].tolist() == ["UNKNOWN"]


def test_a_filesystem_of_ones_own_is_read(ray_session: None, tmp_path: Path) -> None:
    """With `RunConfig(storage_filesystem=…)`: by the results, and by path and filesystem."""
    storage = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    run_config = tune.RunConfig(
        name="sweep", storage_path="bucket", storage_filesystem=storage, verbose=0
    )
    space = {"curve": "saved"}
    results = tune.Tuner(play, param_space=space, run_config=run_config).fit()
    for best in (
        best_state(results, "eval/loss", "min"),
        best_state("bucket/sweep", "eval/loss", "min", filesystem=storage),
    ):
        assert best.checkpoint.startswith("bucket/sweep/")
        with best.directory() as folder:
            assert json.loads(Path(folder, "loss.json").read_text()) == best.value == 1.0


@pytest.mark.parametrize(("keep", "folders"), [("best+last", 2), (2, 3), ("all", 6)])
def test_best_checkpoint_is_kept(
    ray_session: None, tmp_path: Path, keep: Any, folders: int
) -> None:
    """With `checkpoint_config`, the best checkpoint survives any number of later ones."""

    def improve_then_worsen(config: dict[str, Any]) -> None:
        for loss in [2.0, 1.0, 3.0, 4.0, 5.0, 6.0]:
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "loss.json").write_text(json.dumps(loss))
                checkpoint = tune.Checkpoint.from_directory(folder)
                tune.report({"loss": loss}, checkpoint=checkpoint)

    checkpoints = checkpoint_config("loss", "min", keep=keep)
    run_config = tune.RunConfig(
        storage_path=str(tmp_path), checkpoint_config=checkpoints, verbose=0
    )
    results = tune.Tuner(improve_then_worsen, run_config=run_config).fit()
    best = best_state(results, "loss", "min")
    assert json.loads(Path(best.checkpoint, "loss.json").read_text()) == 1.0
    assert len(list(Path(best.checkpoint).parent.glob("checkpoint_*"))) == folders


def test_nested_metrics_are_refused_where_ray_would_lose_the_best() -> None:
    """Ray keeps by recency then; with everything kept there is nothing to lose."""
    with pytest.raises(ValueError, match="as 'eval_loss', or give keep=\"all\""):
        checkpoint_config("eval/loss", "min")
    assert checkpoint_config("eval/loss", "min", keep="all").num_to_keep is None


@pytest.mark.parametrize(
    ("size", "level", "text"),
    [
        (1e3, "INFO", "3 trials x 2 x 1e-06 GB = 6e-06 GB."),
        (1e18, "WARNING", "3 trials x 2 x 1e+09 GB = 6e+09 GB, and "),
    ],
)
def test_space_is_said_before_the_sweep(
    tmp_path: Path, caplog: Any, size: float, level: str, text: str
) -> None:
    """Count × size, and a warning where the disk has less."""
    with caplog.at_level("INFO", "tune_stoppers"):
        checkpoint_config("loss", "min", trials=3, checkpoint_bytes=size, storage_path=tmp_path)
    (record,) = caplog.records
    assert record.levelname == level
    assert text in record.getMessage()
