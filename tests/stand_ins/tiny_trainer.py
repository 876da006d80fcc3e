"""A Trainer of a tiny model, for trials and for plain processes."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments, default_data_collator

from tests.stand_ins.tiny import tiny_model, tiny_rows


def make_trainer(
    folder: str | Path,
    callbacks: list[Any],
    learning_rate: float = 0.01,
    model: Any = None,
    **changes: Any,
) -> Trainer:
    """Eight steps, an evaluation every two; deterministic."""
    torch.set_num_threads(1)
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": 8,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "no",
        "learning_rate": learning_rate,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "prediction_loss_only": True,
        "use_cpu": True,
    }
    rows: Any = tiny_rows()
    return Trainer(
        tiny_model() if model is None else model,
        TrainingArguments(**settings | changes),
        default_data_collator,
        train_dataset=rows,
        eval_dataset=rows,
        callbacks=callbacks,
    )


class FailOnce(TrainerCallback):
    """Fails after a step, the first time that this file does not exist."""

    def __init__(self, step: int, marker: Path, kill: bool = False) -> None:
        self.step, self.marker, self.kill = step, marker, kill

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step and not self.marker.exists():
            self.marker.touch()
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("on purpose")


def rows_of(result: Any) -> list[dict[str, Any]]:
    """The reports of a trial, as Ray wrote them."""
    lines = Path(result.path, "result.json").read_text().splitlines()
    return [json.loads(line) for line in lines]
