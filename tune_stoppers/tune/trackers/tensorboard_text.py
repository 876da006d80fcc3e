"""TensorBoard: texts beside the scalars that Ray's `TBXLoggerCallback` writes for a trial."""

from pathlib import Path
from typing import Any

from tune_stoppers.tune.ray_internals.types import Trial
from tune_stoppers.tune.trackers.outcome import Outcome

EVENTS = "events.out.tfevents.*"


class TensorBoardTexts:
    """Writes into the trial's own folder, which TensorBoard shows as one run.

    Each outcome is a file of its own, written after Ray's: TensorBoard reads the files of a run
    one after the other.
    """

    def __init__(self) -> None:
        self._files = 0

    def in_use(self, trial: Trial) -> bool:
        """Whether something has written events there."""
        folder = _folder(trial)
        return folder is not None and next(folder.glob(EVENTS), None) is not None

    def write(self, trial: Trial, outcome: Outcome) -> None:
        """Write the texts; they are on disk when it returns."""
        from tensorboardX import SummaryWriter

        folder = _folder(trial)
        if folder is None:
            raise LookupError(f"{trial} has no folder")
        self._files += 1
        with SummaryWriter(str(folder), filename_suffix=f".decision{self._files}") as writer:
            for key, text in outcome.words.items():
                writer.add_text(key, text, outcome.step)


def _folder(trial: Any) -> Path | None:
    path = trial.local_path
    return None if path is None else Path(path)
