"""`DecisionCallback`: why each trial was stopped, in the tracker where its run is looked at."""

import importlib.util
from collections.abc import Mapping
from typing import Any

from ray.tune import Callback

from tune_stoppers.metrics import logger, number
from tune_stoppers.result_keys import STOP_REASON, TRAINING_ITERATION
from tune_stoppers.tune.announcing import Verdict, listen, metrics_of
from tune_stoppers.tune.live import Live, without_live
from tune_stoppers.tune.ray_internals.types import Trial
from tune_stoppers.tune.trackers.mlflow_tags import MLflowTags
from tune_stoppers.tune.trackers.outcome import (
    DECISION,
    FAILED,
    NOT_STOPPED,
    STOP_STATUS,
    STOPPED,
    Outcome,
    Tracker,
    status_at,
)
from tune_stoppers.tune.trackers.tensorboard_text import TensorBoardTexts
from tune_stoppers.tune.trackers.trackio_runs import TrackioRuns
from tune_stoppers.tune.trackers.wandb_config import put_words_into_config

WANDB, MLFLOW, TENSORBOARD, TRACKIO = "wandb", "mlflow", "tensorboard", "trackio"
MODULES = {WANDB: "wandb", MLFLOW: "mlflow", TENSORBOARD: "tensorboardX", TRACKIO: "trackio"}


class _Told(Live):
    """What is known while the sweep runs."""

    def __init__(self, trackio_project: str | None) -> None:
        self.heard: dict[str, list[Verdict]] = {}  # at the report that is being processed
        self.outcomes: dict[str, Outcome] = {}  # the newest of each trial
        self.due: dict[str, tuple[Trial, Outcome]] = {}  # to be written at the end of the step
        self.warned: set[str] = set()
        self.trackers: dict[str, Tracker] = {
            MLFLOW: MLflowTags(),
            TENSORBOARD: TensorBoardTexts(),
            TRACKIO: TrackioRuns(trackio_project),
        }


class DecisionCallback(Callback):
    """Writes each decision to the trackers in use; one line in `RunConfig`, before the loggers::

        RunConfig(callbacks=[DecisionCallback(), WandbLoggerCallback(project="sweep")])

    Args:
        trackers: "wandb", "mlflow", "tensorboard", "trackio"; none: whichever are in use.
        trackio_project: the project of Trackio; None: the experiment's name.

    In use are: W&B where the driver has imported `WandbLoggerCallback`; MLflow where a tracking
    URI is set, or its default store is there; TensorBoard where the trial's folder has events;
    Trackio where the driver has imported it. The runs are those that Ray's callbacks, or the
    trials themselves, have made; Trackio, for which Ray has none, gets a run of the trial's name.

    Every result gets `stop_status` ("not stopped", "stopped", "paused", "would stop" under
    `dry_run`), and under `decision/` the numbers that were compared, as `Owner/Rule/best`, with
    `stopped`, 1 or 0. So they are metrics in all of Ray's loggers. The words are
    in W&B: the run's config, `stop_status` and `stop_reason`;
    in MLflow: the run's tags of these names;
    in TensorBoard: texts of these names;
    in Trackio: logged with the numbers.

    They are written when a trial is stopped, paused, would be stopped, fails ("failed") or comes
    to its own end ("not stopped"). A tracker that fails ends no sweep: one warning says so.

    Raises `ValueError` for an unknown tracker, `ImportError` for one that is named and not
    installed.
    """

    def __init__(self, *trackers: str, trackio_project: str | None = None) -> None:
        for name in trackers:
            if name not in MODULES:
                raise ValueError(f"DecisionCallback knows {', '.join(MODULES)}, got {name!r}.")
            if importlib.util.find_spec(MODULES[name]) is None:
                raise ImportError(
                    f"DecisionCallback({name!r}) needs {MODULES[name]}, which is not installed: "
                    f"pip install 'tune_stoppers[{name}]'"
                )
        self.trackers, self.trackio_project = trackers, trackio_project
        self._told = _Told(trackio_project)

    def __getstate__(self) -> dict[str, Any]:
        """As it was constructed: Ray pickles it with the experiment."""
        return without_live(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._told = _Told(self.trackio_project)

    def hear(self, verdict: Verdict) -> None:
        """A stopper or a scheduler has decided on the report that Ray processes now."""
        self._told.heard.setdefault(verdict.trial_id, []).append(verdict)

    # -- Ray's calls ---------------------------------------------------------------------------

    def setup(self, **info: Any) -> None:
        """The sweep begins."""
        listen(self)
        if (not self.trackers or WANDB in self.trackers) and not put_words_into_config():
            self._warn_of_missing_logger()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """All have decided on a report: say so in the result that the loggers are about to get."""
        verdicts = self._told.heard.pop(trial.trial_id, [])
        status, reason = status_at(result, verdicts)
        numbers = {key: x for verdict in verdicts for key, x in metrics_of(verdict).items()}
        outcome = Outcome(status, reason, _step(result), numbers)
        result[STOP_STATUS] = status
        result[DECISION] = outcome.metrics
        before = self._told.outcomes.get(trial.trial_id)
        self._told.outcomes[trial.trial_id] = outcome
        changed = before is None or before[:2] != outcome[:2]
        if changed and (before or status != NOT_STOPPED):
            self._told.due[trial.trial_id] = trial, outcome

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """A trial has ended: by a decision, also one taken while it waited, or by itself."""
        result = trial.last_result or {}
        before = self._told.outcomes.get(trial.trial_id, Outcome(NOT_STOPPED, step=_step(result)))
        reason = str(result.get(STOP_REASON) or "")
        if reason and before.status != STOPPED:
            before = before._replace(status=STOPPED, reason=reason)
        self._told.due[trial.trial_id] = trial, before
        self._told.outcomes.pop(trial.trial_id, None)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """A trial has failed for good."""
        step = _step(trial.last_result or {})
        self._told.due[trial.trial_id] = trial, Outcome(FAILED, step=step)
        self._told.outcomes.pop(trial.trial_id, None)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Ray's loggers have had their turn, in whatever order the callbacks are."""
        self._write()

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """The sweep is over."""
        self._write()

    # -- inside --------------------------------------------------------------------------------

    def _write(self) -> None:
        due = list(self._told.due.values())
        self._told.due.clear()
        for trial, outcome in due:
            for name, tracker in self._told.trackers.items():
                try:
                    if name in self.trackers or (not self.trackers and tracker.in_use(trial)):
                        tracker.write(trial, outcome)
                except Exception as error:  # whatever a tracker runs into: the sweep goes on
                    self._warn(name, f"DecisionCallback cannot write to {name}: {error!r}.")

    def _warn(self, name: str, text: str) -> None:
        if name not in self._told.warned:
            self._told.warned.add(name)
            logger.warning("%s", text)

    def _warn_of_missing_logger(self) -> None:
        if WANDB in self.trackers:
            self._warn(
                WANDB,
                "DecisionCallback('wandb') writes to the runs of Ray's WandbLoggerCallback: add "
                "ray.air.integrations.wandb.WandbLoggerCallback(project=...) after it.",
            )


def _step(result: Mapping[str, Any]) -> int:
    return int(number(result.get(TRAINING_ITERATION)) or 0)
