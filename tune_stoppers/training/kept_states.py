"""One state that a keeper kept: what is known of it, and its folder on the disk."""

import math
import numbers
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tune_stoppers.training.snapshot import InMemory, Snapshot
from tune_stoppers.training.state_files import (
    StateFileError,
    read_extra,
    read_state,
    temporary_name,
)

FOLDER = re.compile(r"\d{6,}-step-.+")  # the names of their folders


@dataclass(frozen=True)
class KeptState:
    """A state that a keeper holds, and what it knows of it."""

    step: float
    loss: float
    epoch: float | None
    serial: int  # counts what was kept: an earlier state wins a tie, the highest is the last
    state: InMemory | Path
    run: str = ""  # which run kept it; "": written before that was noted

    def read(self) -> Snapshot:
        """The state itself."""
        return read_state(self.state) if isinstance(self.state, Path) else self.state.read()


def ranked(states: list[KeptState]) -> list[KeptState]:
    """Best first; an earlier state before a later one of equal loss, non-finite ones at the end."""
    return sorted(states, key=lambda k: (k.loss if math.isfinite(k.loss) else math.inf, k.serial))


def plain_number(name: str, value: object) -> Any:
    """`value` as a plain int or float; one-element tensors and arrays count as numbers."""
    if isinstance(value, (Tensor, np.ndarray, np.generic)) and math.prod(value.shape) == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be one real number, got {type(value).__name__}")
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def read_kept(folder: Path) -> KeptState:
    """What a keeper wrote into `folder`; `StateFileError` if it is no keeper's."""
    extra = read_extra(folder)
    try:
        named = {name: extra[name] for name in ("step", "loss", "serial")}
    except KeyError as error:
        raise StateFileError(f"{folder}: not written by a keeper: lacks {error}") from error
    return KeptState(**named, epoch=extra.get("epoch"), state=folder, run=extra.get("run", ""))


def remove_folder(folder: Path) -> None:
    """Remove a state so that a half-removed one is never mistaken for a whole one."""
    doomed = temporary_name(folder)
    folder.rename(doomed)
    shutil.rmtree(doomed)
