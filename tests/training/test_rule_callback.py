"""RuleCallback: a real Trainer with a tiny model, ended by a rule."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from transformers import Trainer, TrainingArguments, default_data_collator

from tests.tiny import tiny_model, tiny_rows
from tune_stoppers import RuleCallback
from tune_stoppers.core import MissingMetricError
from tune_stoppers.rules import Divergence, Patience, Threshold


def train(folder: Path, callback: RuleCallback, **changes: Any) -> Trainer:
    """Up to 12 steps, an evaluation every second one, a training log at every one."""
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": 12,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "logging_steps": 1,
        "save_strategy": "no",
        "learning_rate": 0.01,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "prediction_loss_only": True,
    }
    rows: Any = tiny_rows()
    trainer = Trainer(
        tiny_model(),
        TrainingArguments(**settings | changes),
        default_data_collator,
        train_dataset=rows,
        eval_dataset=rows,
        callbacks=[callback],
    )
    trainer.train()
    return trainer


def test_patience_ends_training_at_the_exact_evaluation(tmp_path: Path) -> None:
    """The falling loss is never better for "max": three evaluations, the second and third bad."""
    callback = RuleCallback(2, "eval_loss", "max")
    assert train(tmp_path, callback).state.global_step == 6
    assert callback.stopped
    assert callback.reason.startswith("Patience: 2 of 2 evaluations without improvement")


def test_an_improving_run_goes_to_its_end(tmp_path: Path) -> None:
    """The same run under "min" is left alone, and says why."""
    callback = RuleCallback(Patience(2), "eval_loss", "min")
    assert train(tmp_path, callback).state.global_step == 12
    assert not callback.stopped
    assert callback.reason.startswith("Patience: improved to")


def test_the_training_loss_can_be_watched(tmp_path: Path) -> None:
    """A threshold on the smoothed training loss ends training between evaluations."""
    callback = RuleCallback(Threshold(3.4, smoothing={"mean": 2}), "loss", "min")
    trainer = train(tmp_path, callback, eval_strategy="no")
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    means = [losses[0], *((a + b) / 2 for a, b in pairwise(losses))]
    expected = next(step for step, mean in enumerate(means, start=1) if mean < 3.4)
    assert trainer.state.global_step == expected < 12


def test_what_else_a_rule_reads_comes_from_the_newest_log(tmp_path: Path) -> None:
    """The gradient norm is in training logs, the objective in evaluations."""
    callback = RuleCallback(Divergence(gradient_limit=1e-6), "eval_loss", "min")
    assert train(tmp_path, callback).state.global_step == 2
    assert "gradient norm" in callback.reason


@pytest.mark.parametrize(
    ("metric", "said"),
    [("eval_los", "Did you mean 'eval_loss'"), ("los", "Did you mean 'loss'")],
)
def test_a_metric_never_logged_names_those_that_are(tmp_path: Path, metric: str, said: str) -> None:
    """At the first evaluation, or the first training log."""
    with pytest.raises(MissingMetricError, match=said):
        train(tmp_path, RuleCallback(2, metric, "min"))
