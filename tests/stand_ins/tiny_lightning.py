"""A LightningModule that validates to what is written down, and a Trainer for it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

QUIET: dict[str, Any] = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}


class Tiny(LightningModule):
    """One weight matrix; four batches an epoch; it logs `val_loss`, `train_loss` and more.

    Args:
        values: what validations find, one after the other; None: what they really find.
        lr: of SGD with momentum.
    """

    def __init__(self, values: Sequence[Any] | None = None, lr: float = 0.1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))
        self.values, self.lr = values, lr

    def training_step(self, batch: Any, index: int) -> Any:
        loss = (self.layers(batch) - batch).square().mean()
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        loss = (self.layers(batch) - batch).square().mean()
        if self.values is None:
            self.log("val_loss", loss)

    def on_validation_epoch_end(self) -> None:
        if self.values is None:
            return
        row = 0.0 if self.trainer.sanity_checking else self.values[self.validations]  # the best
        for name, value in (row if isinstance(row, dict) else {"val_loss": row}).items():
            self.log(name, float(value))

    @property
    def validations(self) -> int:
        """How many there could have been before this one."""
        every = self.trainer.val_check_batch or 1
        return self.trainer.global_step // int(every) - 1

    def on_train_epoch_end(self) -> None:
        self.log("epochs_left", 10.0 - self.trainer.current_epoch)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self) -> Any:
        rows: Any = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
        return DataLoader(rows, batch_size=2, shuffle=True)

    def val_dataloader(self) -> Any:
        rows: Any = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
        return DataLoader(rows, batch_size=4)


def tiny_trainer(folder: Path, *callbacks: Any, **changes: Any) -> Trainer:
    """At most ten epochs, a validation after each; it saves only where a callback does."""
    saves = any("Checkpoint" in base.__name__ for c in callbacks for base in type(c).__mro__)
    settings = {"max_epochs": 10, "enable_checkpointing": saves, **QUIET, **changes}
    return Trainer(default_root_dir=str(folder), callbacks=list(callbacks), **settings)
