"""RuleCallback in runs that were cut or stopped, and go on from the Trainer's checkpoint."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments, default_data_collator

from tests.stand_ins.tiny import tiny_model, tiny_rows
from tune_stoppers import RuleCallback
from tune_stoppers.rules import Patience, Threshold


class Cut(TrainerCallback):
    """The process dies after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def trainer_of(folder: Path, *callbacks: TrainerCallback, **changes: Any) -> Trainer:
    """For 12 steps in epochs of 8: an evaluation each second one, a checkpoint each fourth."""
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": 12,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": 4,
        "per_device_train_batch_size": 2,
        "learning_rate": 0.01,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "prediction_loss_only": True,
    }
    rows: Any = tiny_rows()
    arguments = TrainingArguments(**settings | changes)
    return Trainer(
        tiny_model(),
        arguments,
        default_data_collator,
        train_dataset=rows,
        eval_dataset=rows,
        callbacks=list(callbacks),
    )


def curve(trainer: Trainer) -> list[tuple[int, str, float]]:
    """Everything logged that is not a time."""
    names = ("loss", "grad_norm", "learning_rate", "eval_loss")
    history = trainer.state.log_history
    return [(row["step"], name, row[name]) for row in history for name in names if name in row]


def stopped_run(folder: Path, **changes: Any) -> dict[str, torch.Tensor]:
    """A run that patience ends at step 6 (of a falling loss, the first is highest); its weights."""
    trainer = trainer_of(folder, RuleCallback(2, "eval_loss", "max"), **changes)
    trainer.train()
    assert trainer.state.global_step == 6
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def test_a_run_that_was_cut_goes_on_as_if_it_was_not(tmp_path: Path) -> None:
    """The curve is the same bit for bit, and patience ends it at the same evaluation."""
    whole_callback = RuleCallback(4, "eval_loss", "max")
    whole = trainer_of(tmp_path / "whole", whole_callback)
    whole.train()
    assert whole.state.global_step == 10

    with pytest.raises(KeyboardInterrupt):
        trainer_of(tmp_path / "cut", RuleCallback(4, "eval_loss", "max"), Cut(7)).train()
    callback = RuleCallback(4, "eval_loss", "max")
    resumed = trainer_of(tmp_path / "cut", callback)
    resumed.train(resume_from_checkpoint=True)
    assert curve(resumed) == curve(whole)
    assert (callback.reason, callback.best_value) == (
        whole_callback.reason,
        whole_callback.best_value,
    )


def test_a_checkpoint_holds_the_evaluation_of_its_own_step(tmp_path: Path) -> None:
    """Decide, save the state, write the checkpoint: not one evaluation behind, and as JSON."""
    trainer_of(tmp_path, RuleCallback(9, "eval_loss", "min")).train()
    state = json.loads((tmp_path / "checkpoint-8" / "trainer_state.json").read_text())
    saved = state["stateful_callbacks"]["tune_stoppers.RuleCallback(eval_loss)"]
    assert saved["step"] == saved["rule"]["state"]["step"] == 8
    assert not saved["stopped"]


@pytest.mark.parametrize(
    "changes",
    [{}, {"gradient_accumulation_steps": 2}, {"restore_callback_states_from_checkpoint": True}],
    ids=["plain", "gradient accumulation", "the Trainer restores callbacks too"],
)
def test_a_stopped_run_stops_again_at_once_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, Any]
) -> None:
    """Also if nothing was due to be saved at its last step; no weight is trained."""
    weights = stopped_run(tmp_path, **changes)
    caplog.clear()
    callback = RuleCallback(2, "eval_loss", "max")
    trainer = trainer_of(tmp_path, callback, **changes)
    result = trainer.train(resume_from_checkpoint=True)
    assert result.global_step == trainer.state.global_step == 6
    assert result.training_loss < 10
    assert callback.stopped
    now = trainer.model.state_dict()
    assert all(torch.equal(tensor, now[name]) for name, tensor in weights.items())
    said = [r.getMessage() for r in caplog.records if r.name == "tune_stoppers"]
    assert len(said) == 1
    assert "was stopped at step 6 (Patience: 2 of 2 evaluations without improvement" in said[0]
    assert 'on_resume="continue" or "restart" trains on' in said[0]
    assert curve(trainer)[-1][0] == 6, "nothing is logged or evaluated once more"
    assert not (tmp_path / "checkpoint-7").exists()


def test_an_epoch_that_ends_right_there_is_not_evaluated_again(tmp_path: Path) -> None:
    """With strategies by epoch, the Trainer would evaluate and save after the empty step."""
    by_epoch = {"eval_strategy": "epoch", "save_strategy": "epoch", "max_steps": 40}
    trainer = trainer_of(tmp_path, RuleCallback(1, "eval_loss", "max"), **by_epoch)
    trainer.train()
    assert trainer.state.global_step == 16
    again = trainer_of(tmp_path, RuleCallback(1, "eval_loss", "max"), **by_epoch)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 16
    assert curve(again) == curve(trainer)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["checkpoint-16", "checkpoint-8"]


@pytest.mark.parametrize(
    ("callback", "said"),
    [
        (RuleCallback(4, "eval_loss", "max", on_resume="continue"), "judged at its next report"),
        (RuleCallback(2, "eval_loss", "max", on_resume="restart"), "the rule begins anew"),
    ],
    ids=["continue", "restart"],
)
def test_a_stopped_run_goes_on_if_told_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, callback: RuleCallback, said: str
) -> None:
    """With more patience, of which two evaluations are used up, or from nothing; it says so."""
    stopped_run(tmp_path)
    caplog.clear()
    caplog.set_level(logging.WARNING, "tune_stoppers")
    trainer = trainer_of(tmp_path, callback)
    trainer.train(resume_from_checkpoint=True)
    expected = {"continue": 10, "restart": 12}[callback.on_resume]
    assert trainer.state.global_step == expected
    [line] = [r.getMessage() for r in caplog.records if r.name == "tune_stoppers"]
    assert "was stopped at step 6" in line and said in line


def test_the_state_of_another_rule_is_refused(tmp_path: Path) -> None:
    """With what to do about it."""
    stopped_run(tmp_path)
    trainer = trainer_of(tmp_path, RuleCallback(Threshold(9.0), "eval_loss", "max"))
    with pytest.raises(ValueError, match=r"'Patience'.*'Threshold'.*on_resume=\"restart\""):
        trainer.train(resume_from_checkpoint=True)


def test_a_rule_may_join_a_run_that_had_none(tmp_path: Path) -> None:
    """A checkpoint without its state is where it begins; later ones carry it."""
    with pytest.raises(KeyboardInterrupt):
        trainer_of(tmp_path, Cut(5)).train()
    callback = RuleCallback(2, "eval_loss", "max")
    trainer = trainer_of(tmp_path, callback, save_steps=2)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 10
    assert "best 3." in callback.reason
    again = trainer_of(tmp_path, RuleCallback(2, "eval_loss", "max"))
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 10


def test_two_rules_on_one_metric_are_one_callback(tmp_path: Path) -> None:
    """Their states would overwrite each other; the error names the way."""
    two = [RuleCallback(rule, "eval_loss", "min") for rule in (Patience(2), Threshold(1.0))]
    with pytest.raises(ValueError, match=r"eval_loss.*RuleCallback\(a \| b\)"):
        trainer_of(tmp_path, *two).train()
    trainer_of(
        tmp_path, RuleCallback(2, "eval_loss", "min"), RuleCallback(9, "loss", "min")
    ).train()
