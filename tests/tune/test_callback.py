"""TuneCallback: a real Trainer, with a tiny model, in real Tune trials."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import tune
from transformers import Trainer, TrainerCallback, TrainingArguments, default_data_collator

from tests.tiny import tiny_model, tiny_rows
from tune_stoppers import TuneCallback, best_state
from tune_stoppers.core import MissingMetricError

pytestmark = pytest.mark.usefixtures("ray_session")


class FailOnce(TrainerCallback):
    """Raises at a step, the first time that this file does not exist."""

    def __init__(self, step: int, marker: Path) -> None:
        self.step, self.marker = step, marker

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step and not self.marker.exists():
            self.marker.touch()
            raise RuntimeError("on purpose")


def make_trainer(
    folder: str, callbacks: list[Any], learning_rate: float = 0.01, **changes: Any
) -> Trainer:
    torch.set_num_threads(1)
    settings: dict[str, Any] = {
        "output_dir": folder,
        "max_steps": 8,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "logging_steps": 2,
        "save_strategy": "no",
        "learning_rate": learning_rate,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "prediction_loss_only": True,
    }
    rows: Any = tiny_rows()
    return Trainer(
        tiny_model(),
        TrainingArguments(**settings | changes),
        default_data_collator,
        train_dataset=rows,
        eval_dataset=rows,
        callbacks=callbacks,
    )


def fit(trainable: Any, storage: Path, **options: Any) -> Any:
    failures = tune.FailureConfig(max_failures=options.pop("max_failures", 0))
    run_config = tune.RunConfig(storage_path=str(storage), failure_config=failures, verbose=0)
    return tune.Tuner(trainable, run_config=run_config, **options).fit()


def rows_of(result: Any) -> list[dict[str, Any]]:
    lines = Path(result.path, "result.json").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def undisturbed(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One trial that runs to its end."""

    def train(config: dict[str, Any]) -> None:
        callback = TuneCallback("eval_loss", "min")
        make_trainer("out", [callback]).train(resume_from_checkpoint=callback.resume_from)

    (result,) = fit(train, tmp_path_factory.mktemp("undisturbed"))
    return result


def test_each_evaluation_is_one_report(undisturbed: Any) -> None:
    """Reports carry the evaluation, the last training log, the step and the progress."""
    rows = rows_of(undisturbed)
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    assert [row["progress"] for row in rows] == [0.25, 0.5, 0.75, 1.0]
    for row in rows:
        assert {"eval_loss", "train_loss", "grad_norm", "lr", "epoch"} <= set(row)
    best = [min(row["eval_loss"] for row in rows[: n + 1]) for n in range(4)]
    assert [row["best_eval_loss"] for row in rows] == best


def test_only_improvements_have_checkpoints(tmp_path: Path) -> None:
    """A checkpoint comes with each improvement, and with every n-th evaluation if asked for."""

    def train(config: dict[str, Any]) -> None:
        callback = TuneCallback("eval_loss", "max", checkpoint_every=config["every"])
        make_trainer("out", [callback]).train()

    space = {"every": tune.grid_search([None, 3])}
    never, third = fit(train, tmp_path, param_space=space)
    with_checkpoint = [row["checkpoint_dir_name"] is not None for row in rows_of(never)]
    assert with_checkpoint == [True, False, False, False]  # the loss falls: never better for max
    with_checkpoint = [row["checkpoint_dir_name"] is not None for row in rows_of(third)]
    assert with_checkpoint == [True, False, True, False]


def test_best_state_reproduces_the_recorded_loss(undisturbed: Any, tmp_path: Path) -> None:
    """The best checkpoint, in a fresh model, evaluates to the value that was recorded."""
    best = best_state(Path(undisturbed.path).parent, "eval_loss", "min")
    trainer = make_trainer(str(tmp_path), [])
    before = trainer.evaluate()["eval_loss"]
    best.restore(trainer.model)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(best.value, abs=1e-5)
    assert before > best.value + 0.01


def test_failed_trial_goes_on_from_its_checkpoint(undisturbed: Any, tmp_path: Path) -> None:
    """A trial that fails and is retried goes on at the right step, on the same curve."""
    marker = tmp_path / "failed"

    def train(config: dict[str, Any]) -> None:
        callback = TuneCallback("eval_loss", "min")
        trainer = make_trainer("out", [callback, FailOnce(5, marker)])
        trainer.train(resume_from_checkpoint=callback.resume_from)

    (result,) = fit(train, tmp_path / "storage", max_failures=1)
    assert marker.exists()
    assert result.error is None
    last, expected = rows_of(result)[-1], rows_of(undisturbed)[-1]
    assert (last["step"], last["training_iteration"]) == (8, 4)
    assert last["iterations_since_restore"] == 2  # evaluations at 6 and 8: it did not start over
    assert last["eval_loss"] == pytest.approx(expected["eval_loss"], abs=1e-6)


def test_changed_learning_rate_is_the_one_used(tmp_path: Path) -> None:
    """After a checkpoint's optimizer state is loaded, a new learning rate goes on, not the old."""
    marker = tmp_path / "failed"

    def train(config: dict[str, Any]) -> None:
        rate = 0.001 if marker.exists() else 0.01
        callback = TuneCallback("eval_loss", "min")
        trainer = make_trainer(
            "out", [callback, FailOnce(5, marker)], rate, lr_scheduler_type="constant"
        )
        trainer.train(resume_from_checkpoint=callback.resume_from)

    (result,) = fit(train, tmp_path / "storage", max_failures=1)
    rates = [row["lr"] for row in rows_of(result)]
    assert rates == pytest.approx([0.01, 0.01, 0.001, 0.001])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval_strategy": "no"}, 'eval_strategy="steps"'),
        ({"save_strategy": "best", "metric_for_best_model": "loss"}, 'save_strategy="no"'),
    ],
)
def test_unfit_arguments_name_the_line_to_change(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    """Arguments under which nothing would be reported are refused before the first step."""
    trainer = make_trainer(str(tmp_path), [TuneCallback("eval_loss", "min")], **changes)
    with pytest.raises(ValueError, match=message):
        trainer.train()


def test_unreported_metric_names_the_reported_ones(tmp_path: Path) -> None:
    """A metric that the evaluation lacks is an error at the first evaluation."""
    trainer = make_trainer(str(tmp_path), [TuneCallback("eval_los", "min")])
    with pytest.raises(MissingMetricError, match="Did you mean 'eval_loss'"):
        trainer.train()
