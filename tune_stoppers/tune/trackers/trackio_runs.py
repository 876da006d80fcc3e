"""Trackio, for which Ray has no logger: a run for each trial, with its decisions."""

import posixpath
import sys

from tune_stoppers.tune.ray_internals.types import Trial
from tune_stoppers.tune.trackers.outcome import DECISION, Outcome


class TrackioRuns:
    """Logs to the run with the trial's name in `project`, which a trial may have made itself.

    Args:
        project: of Trackio; None: the experiment's name.
    """

    def __init__(self, project: str | None = None) -> None:
        self.project = project

    def in_use(self, trial: Trial) -> bool:
        """Whether the driver has imported it."""
        return "trackio" in sys.modules

    def write(self, trial: Trial, outcome: Outcome) -> None:
        """Log the words and the numbers."""
        import trackio

        if trial.storage is None:
            raise LookupError(f"{trial} has no storage")
        run = trackio.init(
            self.project or posixpath.basename(trial.storage.experiment_fs_path),
            name=str(trial),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
            config=dict(trial.config),
        )
        numbers = {f"{DECISION}/{key}": value for key, value in outcome.metrics.items()}
        run.log({**outcome.words, **numbers}, step=outcome.step)
        run.finish()
