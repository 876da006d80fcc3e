"""One trial of the fine-tuning sweep: a language model, the Hugging Face Trainer, TuneCallback."""

import tempfile
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    PrinterCallback,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

from experiments.docpairs import Pair
from experiments.model import add_lora, load
from tune_stoppers import TuneCallback
from tune_stoppers.core import Mode

Rows = list[dict[str, list[int]]]

# What a trial reports, beside what Ray adds; the sweep checks --metric against it.
REPORTED = (
    "best_eval_loss",
    "epoch",
    "eval_loss",
    "grad_norm",
    "lr",
    "progress",
    "step",
    "train_loss",
)


@dataclass(frozen=True)
class Task:
    """What all trials of a sweep share."""

    model: str  # a folder, or a hub name
    max_steps: int  # optimizer steps of a full run
    eval_every: int  # optimizer steps
    batch_size: int  # examples a step
    seed: int
    full: bool  # fine-tune all weights instead of a LoRA adapter
    metric: str
    mode: Mode
    threads: int = 1  # of the CPU, for one trial
    eval_on_start: bool = True  # what every trial has to beat
    bf16: bool = True  # matrix products are in bf16, else in f32


@dataclass(frozen=True)
class Data:
    """The pairs of a sweep, encoded; no pair is in two parts."""

    train: Rows
    evaluation: Rows  # what trials are compared on
    heldout: Rows  # what no trial sees
    example: Pair  # one of the held-out pairs, to show


def build_model(task: Task, config: dict[str, Any]) -> tuple[Any, Any]:
    """The pretrained model, ready to fine-tune, and its tokenizer; the same at every call.

    A LoRA fine-tune has a base in bf16 and adapters in f32; a full one has f32 weights, which the
    Trainer then runs in bf16, since small updates to bf16 weights would be lost. All is f32 where
    the task says so.
    """
    torch.set_num_threads(task.threads)
    set_seed(task.seed)
    if task.full:
        return load(task.model, dtype=torch.float32)
    model, tokenizer = load(task.model, dtype=torch.bfloat16 if task.bf16 else torch.float32)
    return add_lora(model, rank=config["lora_rank"], seed=task.seed), tokenizer


def build_trainer(
    task: Task,
    config: dict[str, Any],
    model: Any,
    train: Rows | None,
    evaluation: Rows,
    output_dir: str,
    callbacks: list[Any] | None = None,
) -> Trainer:
    """The Trainer of a trial; the same one evaluates its restored best state afterwards."""
    arguments = TrainingArguments(
        output_dir=output_dir,
        max_steps=task.max_steps,
        per_device_train_batch_size=task.batch_size,
        per_device_eval_batch_size=2 * task.batch_size,
        learning_rate=config["learning_rate"],
        lr_scheduler_type=config["schedule"],
        warmup_steps=round(config["warmup"] * task.max_steps),
        weight_decay=config["weight_decay"],
        eval_on_start=task.eval_on_start,
        eval_strategy="steps",
        eval_steps=task.eval_every,
        logging_steps=task.eval_every,
        save_strategy="no",  # TuneCallback says when
        prediction_loss_only=True,
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        bf16=task.full and task.bf16,
        seed=task.seed,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=evaluation,
        data_collator=default_data_collator,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)  # Tune shows what is reported
    return trainer


def train(config: dict[str, Any], *, task: Task, train_rows: Rows, eval_rows: Rows) -> None:
    """The Tune function trainable."""
    model, _ = build_model(task, config)
    callback = TuneCallback(task.metric, task.mode, checkpoint_every=1)  # where it may be paused
    with tempfile.TemporaryDirectory(prefix="finetune-") as folder:
        trainer = build_trainer(task, config, model, train_rows, eval_rows, folder, [callback])
        trainer.train(resume_from_checkpoint=callback.resume_from)


def evaluate(task: Task, config: dict[str, Any], model: Any, rows: Rows) -> float:
    """The evaluation loss of `model` on `rows`, in the same batches as during training."""
    torch.set_num_threads(task.threads)
    with tempfile.TemporaryDirectory(prefix="finetune-") as folder:
        trainer = build_trainer(task, config, model, None, rows, folder)
        return float(trainer.evaluate()["eval_loss"])
