"""What `TuneCallback` notes in a Trainer's checkpoint; how to continue at another rate."""

import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tune_stoppers.core import require
from tune_stoppers.training.going_back import scale_rates

logger = logging.getLogger("tune_stoppers")

NOTE = "tune_stoppers.json"  # beside the Trainer's files in each checkpoint


@dataclass(frozen=True)
class Note:
    """One checkpoint of a trial."""

    metric: str
    value: float | None  # at the checkpoint; None: not finite
    best: float | None  # up to there
    step: int  # optimizer steps
    evaluations: int  # up to there
    learning_rate: float  # TrainingArguments.learning_rate

    def write(self, folder: str | os.PathLike[str]) -> None:
        Path(folder, NOTE).write_text(json.dumps(asdict(self), allow_nan=False), encoding="utf-8")

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> "Note | None":
        """The note in a checkpoint; None if it has none: `TuneCallback` did not write it."""
        path = Path(folder, NOTE)
        if not path.exists():
            return None
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is torn or not TuneCallback's: {error}") from error


def rescale(new: float, old: float, optimizer: Any, schedule: Any) -> None:
    """Let a loaded optimizer and schedule continue at the learning rate `new` instead of `old`.

    The state of both was saved under `old` and brings it back. Every parameter group and every
    base rate of the schedule is multiplied with new / old: the position in the schedule stays, and
    so do the ratios between groups.
    """
    if new == old:
        return
    require(
        old > 0,
        f"The checkpoint was written under learning_rate={old:g}, which no factor turns into "
        f"{new:g}: start this trial from weights alone.",
    )
    factor = new / old
    scale_rates(optimizer, schedule, factor)
    logger.info("The learning rate continues at %g times what the checkpoint had.", factor)
