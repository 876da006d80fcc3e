"""TuneCallback outside Ray: what a resumed Trainer goes on with, and what it refuses."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from ray import tune
from transformers import TrainerCallback

from tests.stand_ins.tiny import tiny_model, tiny_rows
from tests.stand_ins.tiny_trainer import make_trainer
from tune_stoppers import TuneCallback, load_state
from tune_stoppers.core import MissingMetricError
from tune_stoppers.tune.trainer.checkpoint_note import Note, rescale

pytestmark = pytest.mark.filterwarnings("ignore:`(report|get_checkpoint)` is meant to only be")


class Watch(TrainerCallback):
    """Notes at each optimizer step what it did to one weight."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.moves: list[torch.Tensor] = []  # weight after - before
        self.gradients: list[torch.Tensor] = []
        self.losses: list[float] = []

    def weight(self, model: Any) -> torch.Tensor:
        found = [p for name, p in model.named_parameters() if "0.self_attn.q_proj" in name]
        return next(weight for weight in found if weight.requires_grad)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        weight = self.weight(kwargs["model"])
        self.before = weight.detach().clone()
        self.gradients.append(weight.grad.detach().clone())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps.append(state.global_step)
        self.moves.append(self.weight(kwargs["model"]).detach() - self.before)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.losses += [logs["loss"]] if "loss" in logs else []


def train(
    folder: Path, start_from: Path | None = None, rate: float = 0.01, **changes: Any
) -> tuple[Watch, Any]:
    """Train; with `start_from`, from that checkpoint on."""
    watch = Watch()
    callback = TuneCallback("eval_loss", "min", start_from=start_from)
    trainer = make_trainer(folder, [callback, watch], rate, **changes)
    trainer.train(resume_from_checkpoint=callback.resume_from)
    return watch, trainer


KEEP = {"save_strategy": "steps", "save_steps": 2}  # the Trainer keeps its folders too


def test_a_changed_learning_rate_is_used_from_the_first_step(tmp_path: Path) -> None:
    """The optimizer's first step after the resume moves by the new rate, not by the loaded one."""
    plain = {"optim": "sgd", "max_grad_norm": 0.0, "lr_scheduler_type": "linear", **KEEP}
    train(tmp_path, rate=0.1, **plain)
    same, _ = train(tmp_path / "same", tmp_path / "checkpoint-4", rate=0.1, **plain)
    other, trainer = train(tmp_path / "other", tmp_path / "checkpoint-4", rate=0.02, **plain)
    assert same.steps == other.steps == [5, 6, 7, 8]
    assert torch.equal(same.gradients[0], other.gradients[0])  # the same batch and weights
    for watch, rate in ((same, 0.1), (other, 0.02)):
        for move, gradient, left in zip(watch.moves, watch.gradients, (4, 3, 2, 1), strict=True):
            expected = -rate * left / 8 * gradient  # the linear schedule, step by step
            torch.testing.assert_close(move, expected, rtol=1e-3, atol=1e-8)
    assert trainer.lr_scheduler.base_lrs == pytest.approx([0.02, 0.02])


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "gradient accumulation": {"gradient_accumulation_steps": 2},
    "bf16": {"bf16": True},
    "fp16": {"fp16": True},  # with the gradient scaler's state
    "best at the end": {"load_best_model_at_end": True},
    "evaluation by epoch": {"eval_strategy": "epoch", "save_strategy": "epoch"},
    "lora": {},
}


def model_of(variant: str) -> Any:
    """A model whose training steps depend on the random state."""
    model = tiny_model()
    if variant == "lora":
        wanted = LoraConfig(r=2, lora_dropout=0.3, target_modules=["q_proj", "v_proj"])
        return get_peft_model(model, wanted)
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.3
    return model


def check_resuming(tmp_path: Path, variant: str, changes: dict[str, Any]) -> None:
    changes = {"logging_steps": 1, **KEEP, **changes}
    whole, _ = train(tmp_path, model=model_of(variant), **changes)
    start = tmp_path / "checkpoint-4"
    rest, trainer = train(tmp_path / "rest", start, model=model_of(variant), **changes)
    assert rest.steps == [5, 6, 7, 8]
    assert rest.losses == whole.losses[4:]
    assert rest.losses != whole.losses[:4]
    for ours, theirs in zip(rest.moves, whole.moves[4:], strict=True):
        assert torch.equal(ours, theirs)
    note = Note.read(start)
    assert note is not None
    load_state(start, trainer.model)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(note.value, abs=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_resuming_goes_on_bit_for_bit(tmp_path: Path, variant: str) -> None:
    """With dropout and shuffled data, a resumed run makes the very steps of an undisturbed one.

    And its checkpoint evaluates to the value that was recorded.
    """
    check_resuming(tmp_path, variant, VARIANTS[variant])


@pytest.mark.stress
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch")
def test_resuming_a_compiled_model_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """torch.compile changes nothing of it; checkpoints carry the plain names of the weights."""
    check_resuming(tmp_path, "plain", {"torch_compile": True})


def test_every_group_and_schedule_is_rescaled() -> None:
    """Ratios between parameter groups stay, also under schedules made of several."""
    weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": weights[0], "lr": 0.1}, {"params": weights[1]}], 0.4)
    parts: list[Any] = [
        torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0),
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 / (1 + step)),
    ]
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, parts, milestones=[1])
    rescale(0.2, 0.4, optimizer, schedule)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.2])
    optimizer.step()
    schedule.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.025, 0.1])
    with pytest.raises(ValueError, match="learning_rate=0"):
        rescale(0.2, 0.0, optimizer, schedule)


def test_a_new_trial_has_its_own_best(tmp_path: Path) -> None:
    """What starts from an older checkpoint judges its own evaluations, and trains further.

    Here it only gets worse: its best is worse than the older one's, for the Trainer too.
    """
    best = {"load_best_model_at_end": True, **KEEP}
    train(tmp_path, **best)
    callback = TuneCallback("eval_loss", "min", start_from=tmp_path / "checkpoint-8")
    trainer = make_trainer(tmp_path / "more", [callback], 10.0, max_steps=12, **best)
    trainer.train(resume_from_checkpoint=callback.resume_from)
    old, new = (
        Note.read(folder) for folder in (tmp_path / "checkpoint-8", tmp_path / "more/checkpoint-10")
    )
    assert old is not None
    assert new is not None
    assert (new.step, new.evaluations, new.best) == (10, 1, new.value)
    assert trainer.state.best_metric > (old.value or 0)
    assert trainer.state.best_global_step == 10


def test_the_best_state_is_in_memory_at_the_end(tmp_path: Path) -> None:
    """Under load_best_model_at_end, also after a resume on a machine without the best folder."""
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss"}
    first = TuneCallback("eval_loss", "min")
    make_trainer(tmp_path / "first", [first], **KEEP, **best, max_steps=4).train()
    lost = tmp_path / "lost"  # what Tune would hand back elsewhere
    (tmp_path / "first" / "checkpoint-4").rename(lost)
    value = Note.read(lost)
    assert value is not None

    again = TuneCallback("eval_loss", "min")
    again._resumed = str(lost)  # as if it were the trial's own checkpoint
    trainer = make_trainer(tmp_path / "again", [again], 10.0, **KEEP, **best)  # only gets worse
    trainer.train(resume_from_checkpoint=again.resume_from)
    assert trainer.state.global_step == 8
    assert trainer.state.best_global_step == 4
    assert trainer.evaluate()["eval_loss"] == pytest.approx(value.value, abs=1e-5)


def test_an_evaluation_repeated_by_a_resume_is_not_counted(tmp_path: Path) -> None:
    """Under eval_on_start, the evaluation of the checkpoint's own step was reported before."""
    train(tmp_path, eval_on_start=True, **KEEP)
    again = TuneCallback("eval_loss", "min")
    again._resumed = str(tmp_path / "checkpoint-4")  # as if it were the trial's own checkpoint
    trainer = make_trainer(tmp_path / "again", [again], eval_on_start=True, **KEEP)
    trainer.train(resume_from_checkpoint=again.resume_from)
    notes = [Note.read(folder / "checkpoint-6") for folder in (tmp_path, tmp_path / "again")]
    assert [note.evaluations for note in notes if note] == [4, 4]  # at 0, 2, 4 and 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval_strategy": "no"}, 'eval_strategy="steps"'),
        ({"save_strategy": "best", "metric_for_best_model": "loss"}, 'save_strategy="no"'),
        ({"save_only_model": True}, "save_only_model=False"),
        ({"eval_delay": 9}, "eval_delay=0"),
        (
            {"load_best_model_at_end": True, "metric_for_best_model": "accuracy", **KEEP},
            "metric_for_best_model='eval_loss', greater_is_better=False",
        ),
        (
            {"load_best_model_at_end": True, "greater_is_better": True, **KEEP},
            "metric_for_best_model='eval_loss', greater_is_better=False",
        ),
    ],
)
def test_unfit_arguments_name_the_line_to_change(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    """Arguments under which a trial would go wrong are refused before the first step."""
    trainer = make_trainer(tmp_path, [TuneCallback("eval_loss", "min")], **changes)
    with pytest.raises(ValueError, match=message):
        trainer.train()


def test_a_single_evaluation_is_warned_of(tmp_path: Path, caplog: Any) -> None:
    """Nothing can be stopped early where the only evaluation comes at the end."""
    with caplog.at_level(logging.WARNING, "tune_stoppers"):
        train(tmp_path, max_steps=2, eval_steps=500)
    assert "eval_steps=1" in caplog.text


def test_a_checkpoint_that_is_not_resumed_from_is_an_error(tmp_path: Path) -> None:
    """Starting over although there is a checkpoint is refused; so is one with nothing left."""
    train(tmp_path, **KEEP)
    start = tmp_path / "checkpoint-8"
    trainer = make_trainer(tmp_path / "a", [TuneCallback("eval_loss", "min", start_from=start)])
    with pytest.raises(ValueError, match=r"resume_from_checkpoint=callback\.resume_from"):
        trainer.train()
    with pytest.raises(ValueError, match=r"raise TrainingArguments\(num_train_epochs"):
        train(tmp_path / "b", start)
    with pytest.raises(ValueError, match=r"has no trainer_state\.json"):
        train(tmp_path / "c", tmp_path)


def test_unreported_metric_names_the_reported_ones(tmp_path: Path) -> None:
    """A metric that the evaluation lacks is an error at the first evaluation."""
    trainer = make_trainer(tmp_path, [TuneCallback("eval_los", "min")])
    with pytest.raises(MissingMetricError, match="Did you mean 'eval_loss'"):
        trainer.train()


def test_several_evaluation_sets_are_one_report(tmp_path: Path) -> None:
    """With a dict of evaluation sets, the metric may come from any of them."""
    rows = tiny_rows()
    callback = TuneCallback("eval_a_loss", "min")
    trainer = make_trainer(tmp_path, [callback], **KEEP)
    trainer.eval_dataset = {"z": rows, "a": rows[:4], "b": rows[4:]}
    trainer.train()
    note = Note.read(tmp_path / "checkpoint-2")
    assert note is not None
    assert (note.metric, note.evaluations) == ("eval_a_loss", 1)


def test_a_nested_metric_is_judged_and_reported_at_the_top(tmp_path: Path) -> None:
    """Under its name with slashes, where checkpoints and schedulers find it."""
    callback = TuneCallback("eval_report/0/f1", "max")
    trainer = make_trainer(tmp_path, [callback], prediction_loss_only=False)
    trainer.compute_metrics = lambda _: {"report": [{"f1": 0.5}]}
    reports: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune, "report", lambda metrics, **_: reports.append(metrics))
        trainer.train()
    assert [row["eval_report/0/f1"] for row in reports] == [0.5] * 4
    assert reports[0]["best_eval_report/0/f1"] == 0.5
    assert callback.best == -0.5
    wrong = make_trainer(tmp_path, [TuneCallback("f1", "max")], prediction_loss_only=False)
    wrong.compute_metrics = lambda _: {"f1": 0.5}
    with pytest.raises(MissingMetricError, match="Did you mean 'eval_f1'"):
        wrong.train()


def test_a_foreign_note_is_an_error(tmp_path: Path) -> None:
    """A note that a crash cut off, or that is not ours, says which file it is."""
    (tmp_path / "tune_stoppers.json").write_text('{"metric": "ev')
    with pytest.raises(ValueError, match=r"tune_stoppers\.json is torn"):
        Note.read(tmp_path)
