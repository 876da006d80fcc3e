"""What Ray does about the checkpoint of a class trainable at a report, which no result tells."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ray.tune.trainable import FunctionTrainable, Trainable

from tune_stoppers.core.track import KEPT_STATES
from tune_stoppers.experiment.class_checkpoints import ITERATION, NAME
from tune_stoppers.metrics import number
from tune_stoppers.result_keys import CHECKPOINT_NAME, DONE, SHOULD_CHECKPOINT, TRAINING_ITERATION
from tune_stoppers.tune.ray_internals.controller import keep_scored, next_checkpoint
from tune_stoppers.tune.ray_internals.types import Trial


class Saving(NamedTuple):
    """What Ray does about a checkpoint at a report."""

    name: str  # of the checkpoint, if it saves
    iteration: float  # Ray's
    sure: bool  # it does, whatever a stopper or a scheduler decides
    every: int = 0  # iterations, where Ray saves by them

    @property
    def told(self) -> dict[str, Any]:
        """What the journal keeps of it."""
        return {NAME: self.name, ITERATION: self.iteration}

    @property
    def may_come_back(self) -> bool:
        """Whether a rule's state here is to be kept, as the trial may go back to this report.

        Where Ray saves rarely, only those are kept that it saves at: there is room for few.
        """
        return self.sure or self.every <= KEPT_STATES


def saving_at(trial: Trial | None, result: Mapping[str, Any]) -> Saving | None:
    """What Ray is going to do at this report of a class trainable; None if it is none.

    The best that was kept so far stays, also where this report lacks the metric to compare it by.
    `trial` is Ray's; None, or one of a replay without a storage, has no checkpoints.
    """
    if CHECKPOINT_NAME in result or trial is None:
        return None  # a function's results always say
    iteration, name = number(result.get(TRAINING_ITERATION)), next_checkpoint(trial)
    if iteration is None or name is None:
        return None
    keep_scored(trial, result)
    every = trial.checkpoint_freq or 0
    due = bool(every) and iteration % every == 0
    ends = bool(result.get(DONE)) and bool(trial.checkpoint_at_end)
    return Saving(name, iteration, due or ends or bool(result.get(SHOULD_CHECKPOINT)), every)


def saves_when_asked(trial: Trial) -> bool:
    """Whether it is a class trainable that can save: Ray has it save when it is paused."""
    cls = trial.get_trainable_cls() if hasattr(trial, "get_trainable_cls") else None
    if cls is None or issubclass(cls, FunctionTrainable):
        return False
    return bool(cls.save_checkpoint is not Trainable.save_checkpoint)


def saved_at_end(trial: Trial, result: Mapping[str, Any]) -> Saving | None:
    """The checkpoint that Ray has saved at the last report of a class trainable, if it has."""
    latest = None if CHECKPOINT_NAME in result else getattr(trial, "latest_checkpoint_result", None)
    iteration = number(result.get(TRAINING_ITERATION))
    if latest is None or number(latest.metrics.get(TRAINING_ITERATION)) != iteration:
        return None
    folder, _, name = str(latest.checkpoint.path).rpartition("/")
    is_own = trial.storage is not None and folder == str(
        trial.storage.trial_fs_path
    )  # PBT gives a trial another's
    return Saving(name, iteration, True) if is_own and iteration is not None else None
