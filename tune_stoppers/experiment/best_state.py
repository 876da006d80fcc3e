"""A best state that was found: its checkpoint, and how it is loaded."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyarrow import fs

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class BestState:
    """A trial's best state that was kept."""

    trial_id: str
    step: float  # the value of `time_attr` at the checkpoint
    value: float  # the metric there, in its own units
    config: dict[str, Any]  # that it was trained with; the trial may have had another later
    checkpoint: str  # its folder, on `filesystem`
    metrics: dict[str, Any] = field(repr=False)  # what was reported with it, as far as is known
    filesystem: fs.FileSystem = field(repr=False)

    @contextmanager
    def directory(self) -> Iterator[str]:
        """The checkpoint as a local folder: itself, or a copy that lasts as long as the block."""
        if isinstance(self.filesystem, fs.LocalFileSystem):
            yield self.checkpoint
            return
        target = tempfile.mkdtemp(prefix="tune_stoppers-")
        try:
            fs.copy_files(self.checkpoint, target, source_filesystem=self.filesystem)
            yield target
        finally:
            shutil.rmtree(target, ignore_errors=True)

    def load(self) -> "dict[str, torch.Tensor]":
        """The weights in the checkpoint, by name, on the CPU.

        From all that `load_state` reads; what else `save_state` was given, `load_state` returns:
        `load_state(best.checkpoint)["step"]`.
        """
        from tune_stoppers.training.checkpoints import load_weights  # torch comes with it

        with self.directory() as directory:
            return load_weights(directory)

    def restore(self, model: Any, optimizer: Any = None, scheduler: Any = None) -> float:
        """Put the state into `model` (and, if given, optimizer and scheduler); its step.

        As `load_state` does: all of it, or nothing.
        """
        from tune_stoppers.training.checkpoints import load_state

        with self.directory() as directory:
            load_state(directory, model, optimizer, scheduler)
        return self.step
