"""A trainable that diverges above a learning rate of 1."""

import json
import tempfile
from pathlib import Path
from typing import Any

from ray import tune

from tune_stoppers import RollbackScheduler

STEPS = 16


def descend(config: dict[str, Any]) -> None:
    """Gradient descent on w²: each step multiplies w with 1 - 2 lr; beyond 10⁹ it fails."""
    step, w = 0, 1.0
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            step, w = json.loads(Path(folder, "state.json").read_text())
    start = step
    while step < STEPS:
        step += 1
        w *= 1 - 2 * config["opt"]["lr"]
        loss = w * w
        if loss > 1e9:
            raise FloatingPointError(f"the loss is {loss:g}")
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "state.json").write_text(json.dumps([step, w]))
            tune.report(
                {"eval": {"loss": loss}, "lr": config["opt"]["lr"], "began_at": start},
                checkpoint=tune.Checkpoint.from_directory(folder),
            )


def scheduler() -> RollbackScheduler:
    """Quick to act, with room for several cuts."""
    return RollbackScheduler(patience=3, max_rollbacks=4, lr_key="opt/lr")
