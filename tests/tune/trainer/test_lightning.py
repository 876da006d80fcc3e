"""LightningTuneCallback: a real Trainer of Lightning, in real Tune trials and outside of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from ray import tune

from tests.stand_ins.tiny_lightning import Tiny, tiny_trainer
from tune_stoppers import LightningRuleCallback, LightningTuneCallback, best_state, best_states
from tune_stoppers.core import MissingMetricError
from tune_stoppers.experiment.own_keys import share_of

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning",
        "ignore:Be aware that when using `ckpt_path`:UserWarning",
        "ignore:`(report|get_checkpoint)` is meant to only be",
    ),
]
VALUES = [5.0, 4.0, 3.0, 3.5, 3.2, 3.1, 3.0, 2.0, 1.0, 0.5]
BATCHES = 4


class FailOnce(Callback):
    """Fails after a step, the first time that this file does not exist."""

    def __init__(self, step: int, marker: Path) -> None:
        self.step, self.marker = step, marker

    def on_train_batch_end(self, trainer: Any, *more: Any) -> None:
        if trainer.global_step == self.step and not self.marker.exists():
            self.marker.touch()
            raise RuntimeError("on purpose")


# -- in Tune ---------------------------------------------------------------------------------------


def train(config: dict[str, Any]) -> None:
    """A trial that fails after three epochs, or is ended by a rule."""
    torch.set_num_threads(1)
    callback = LightningTuneCallback("val_loss", "min")
    if config["how"] == "fails":
        module, other = Tiny(), FailOnce(3 * BATCHES + 1, Path(config["folder"], "failed"))
    else:
        module, other = Tiny(VALUES), LightningRuleCallback(3, "val_loss", "min")
    trainer = tiny_trainer(Path("out"), callback, other, max_epochs=8)
    trainer.fit(module, ckpt_path=callback.resume_from)


@pytest.fixture(scope="module")
def trials(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("trials")
    results = tune.Tuner(
        train,
        param_space={"how": tune.grid_search(["ruled", "fails"]), "folder": str(folder)},
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=str(folder),
            failure_config=tune.FailureConfig(max_failures=1),
            verbose=0,
        ),
        tune_config=tune.TuneConfig(max_concurrent_trials=1, reuse_actors=True),
    ).fit()
    assert (folder / "failed").exists()
    return {result.config["how"]: result for result in results}


def rows_of(result: Any) -> list[dict[str, Any]]:
    lines = Path(result.path, "result.json").read_text().splitlines()
    return [json.loads(line) for line in lines]


class Logged(Callback):
    """Notes what has been logged by the end of each epoch."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.rows.append({name: float(v) for name, v in trainer.callback_metrics.items()})


def test_a_failed_trial_reports_what_one_does_that_did_not(
    trials: dict[str, Any], tmp_path: Path
) -> None:
    """Each validation once, with the epoch's training loss; dropout and shuffled data as well."""
    assert trials["fails"].error is None
    rows = rows_of(trials["fails"])
    assert rows[-1]["iterations_since_restore"] < rows[-1]["training_iteration"] == 8
    logged = Logged()
    tiny_trainer(tmp_path, logged, max_epochs=8).fit(Tiny())
    assert [row["val_loss"] for row in rows] == [row["val_loss"] for row in logged.rows]
    assert [row["train_loss"] for row in rows] == [row["train_loss"] for row in logged.rows]
    assert [row["step"] for row in rows] == [BATCHES * n for n in range(1, 9)]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [share_of(row) for row in rows] == [n / 8 for n in range(1, 9)]
    assert rows[0]["lr"] > rows[1]["lr"]
    best = [min(row["val_loss"] for row in rows[:n]) for n in range(1, 9)]
    assert [row["best_val_loss"] for row in rows] == best


def test_the_best_state_is_found_and_restored(trials: dict[str, Any], tmp_path: Path) -> None:
    """In a fresh module it validates to the recorded value."""
    folder = Path(trials["fails"].path).parent
    frame = best_states(folder, "val_loss", "min").set_index("config/how")
    assert list(frame["status"].unique()) == ["TERMINATED"]
    row = frame.loc["fails"]
    best = best_state(folder, "val_loss", "min", trial_id=row["trial_id"])
    module = Tiny()
    best.restore(module)
    found = tiny_trainer(tmp_path).validate(module, verbose=False)
    assert found[0]["val_loss"] == pytest.approx(best.value, abs=1e-6)
    assert row["checkpoint_value"] == min(r["val_loss"] for r in rows_of(trials["fails"]))


def test_a_rule_ends_a_trial_and_its_state_is_in_the_checkpoint(trials: dict[str, Any]) -> None:
    """Though the rule's callback comes after in the list."""
    assert [row["step"] for row in rows_of(trials["ruled"])][-1] == BATCHES * 6
    frame = best_states(Path(trials["ruled"].path).parent, "val_loss", "min")
    path = frame.set_index("config/how").loc["ruled", "checkpoint"]
    saved = torch.load(Path(path, "checkpoint.ckpt"), weights_only=True)["callbacks"]
    judged = saved["tune_stoppers.LightningRuleCallback(val_loss)"]["judge"]
    assert (judged["step"], judged["best_value"]) == (BATCHES * 3, 3.0)
    assert saved["tune_stoppers.LightningTuneCallback"]["logged"]["fresh"] == []  # all reported


# -- outside of Tune -------------------------------------------------------------------------------


class Watch(Callback):
    """Notes the weights after each optimizer step, and the rate."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, float]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *more: Any) -> None:
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.seen.append((pl_module.layers[0].weight.tolist(), rate))


def run(folder: Path, lr: float = 0.1, start_from: Any = None, **changes: Any) -> Watch:
    watch = Watch()
    callback = LightningTuneCallback("val_loss", "min", start_from=start_from)
    others = [] if start_from else [ModelCheckpoint(folder, save_top_k=-1, filename="{epoch}")]
    trainer = tiny_trainer(folder, callback, watch, *others, **{"max_epochs": 4, **changes})
    trainer.fit(Tiny(lr=lr), ckpt_path=callback.resume_from)
    return watch


@pytest.fixture
def second_epoch(tmp_path: Path) -> Path:
    """What a run had after two epochs of four, and `all.json`, what it came to."""
    whole = run(tmp_path / "whole")
    folder = tmp_path / "second"
    folder.mkdir()
    (tmp_path / "whole" / "epoch=1.ckpt").rename(folder / "epoch=1.ckpt")
    (folder / "all.json").write_text(json.dumps(whole.seen))
    return folder


def test_a_run_continues_bit_for_bit(second_epoch: Path, tmp_path: Path) -> None:
    """Weights, momentum, schedule, dropout and the order of the data; or at another rate."""
    whole = json.loads((second_epoch / "all.json").read_text())
    rest = run(tmp_path / "rest", start_from=second_epoch)
    assert json.loads(json.dumps(rest.seen)) == whole[2 * BATCHES :]
    slower = run(tmp_path / "slower", lr=0.02, start_from=second_epoch)
    rates = [rate for _, rate in slower.seen]
    assert rates == pytest.approx([rate / 5 for _, rate in rest.seen])


def test_what_it_cannot_start_from(second_epoch: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no files of Lightning"):
        run(tmp_path / "none", start_from=tmp_path)
    with pytest.raises(ValueError, match=r"start_from is at epoch 2, step 8.*raise Trainer\(max_e"):
        run(tmp_path / "short", start_from=second_epoch, max_epochs=2)
    callback = LightningTuneCallback("val_loss", "min", start_from=second_epoch)
    with pytest.raises(ValueError, match=r"fit\(model, ckpt_path=callback.resume_from\)"):
        tiny_trainer(tmp_path, callback).fit(Tiny())


@pytest.mark.parametrize(("changes", "step"), [({}, 4), ({"val_check_interval": 2}, 2)])
def test_a_metric_that_is_never_logged(tmp_path: Path, changes: dict[str, Any], step: int) -> None:
    trainer = tiny_trainer(tmp_path, LightningTuneCallback("val_los", "min"), **changes)
    with pytest.raises(MissingMetricError, match="Did you mean 'val_loss'"):
        trainer.fit(Tiny())
    assert trainer.global_step == step
