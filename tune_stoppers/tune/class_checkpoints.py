"""Which report does a checkpoint of a class trainable belong to?

Ray saves such a trial after the report, by `checkpoint_frequency`, at its end and when it is
paused, and no result names the checkpoint. But Ray counts: the next one of a trial has a name that
is known before it is written. So a journal has a line for each such report with that name, in case
Ray saves now, and with Ray's `iteration`: the newest line with a name is about the report that the
checkpoint belongs to. A `ResultGrid` knows it too. From a folder without a journal it cannot be
known.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ray.tune.trainable import FunctionTrainable, Trainable

from tune_stoppers.core.track import KEPT_STATES
from tune_stoppers.journal.lines import FORGOT, SAVING, Line
from tune_stoppers.metrics import number
from tune_stoppers.result_keys import CHECKPOINT_NAME, DONE, SHOULD_CHECKPOINT, TRAINING_ITERATION
from tune_stoppers.tune.ray_internals.controller import keep_scored, next_checkpoint

NAME, ITERATION = "saves", "iteration"  # keys of a line
CLOCKS_APART = 1.0  # seconds, of storage and driver


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


class Claim(NamedTuple):
    """A report that a checkpoint may belong to."""

    time: float  # when it was judged, in seconds since the epoch
    iteration: float  # Ray's

    def row_in(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
        """The report in `result.json`; None if it is not there."""
        found = None
        for row in rows:  # a trial that went back has reported an iteration more than once
            reported = number(row.get("timestamp"))
            early = reported is None or reported <= self.time + CLOCKS_APART
            if early and number(row.get(TRAINING_ITERATION)) == self.iteration:
                found = dict(row)
        return found


def saving_at(trial: Any, result: Mapping[str, Any]) -> Saving | None:
    """What Ray is going to do at this report of a class trainable; None if it is none.

    The best that was kept so far stays, also where this report lacks the metric to compare it by.
    `trial` is Ray's; None, or one of a replay without a storage, has no checkpoints.
    """
    iteration = number(result.get(TRAINING_ITERATION))
    if CHECKPOINT_NAME in result or iteration is None or trial is None:
        return None  # a function's results always say
    name = next_checkpoint(trial)
    if name is None:
        return None
    keep_scored(trial, result)
    every = trial.checkpoint_freq or 0
    due = bool(every) and iteration % every == 0
    ends = bool(result.get(DONE)) and bool(trial.checkpoint_at_end)
    return Saving(name, iteration, due or ends or bool(result.get(SHOULD_CHECKPOINT)), every)


def saves_when_asked(trial: Any) -> bool:
    """Whether it is a class trainable that can save: Ray has it save when it is paused."""
    cls: Any = trial.get_trainable_cls() if hasattr(trial, "get_trainable_cls") else None
    if cls is None or issubclass(cls, FunctionTrainable):
        return False
    return bool(cls.save_checkpoint is not Trainable.save_checkpoint)


def saved_at_end(trial: Any, result: Mapping[str, Any]) -> Saving | None:
    """The checkpoint that Ray has saved at the last report of a class trainable, if it has."""
    latest = None if CHECKPOINT_NAME in result else getattr(trial, "latest_checkpoint_result", None)
    iteration = number(result.get(TRAINING_ITERATION))
    if latest is None or number(latest.metrics.get(TRAINING_ITERATION)) != iteration:
        return None
    folder, _, name = str(latest.checkpoint.path).rpartition("/")
    is_own = folder == str(trial.storage.trial_fs_path)  # PBT gives a trial another's
    return Saving(name, iteration, True) if is_own and iteration is not None else None


def claims_in(lines: Iterable[Line]) -> dict[str, dict[str, list[Claim]]]:
    """By trial and name, the reports that a checkpoint may belong to; oldest first, as `lines`."""
    found: dict[str, dict[str, list[Claim]]] = {}
    for line in lines:
        if line.get("event") == FORGOT:
            for gone in line["trials"]:
                found.pop(str(gone), None)
        if line.get("event") != SAVING:
            continue
        name, iteration = line.get(NAME), number(line.get(ITERATION))
        if isinstance(name, str) and iteration is not None:
            of_trial = found.setdefault(line["trial"], {})
            of_trial.setdefault(name, []).append(Claim(float(line["time"]), iteration))
    return found


def rightful(claims: list[Claim], written: Callable[[], float | None]) -> Claim:
    """The one of `claims` that is right: the newest from before the folder was `written`.

    After a kill Ray may count from a lower number again: a name that is promised to a report is,
    until Ray saves, still that of an earlier one.
    """
    time = written() if len(claims) > 1 else None
    before = claims if time is None else [c for c in claims if c.time <= time + CLOCKS_APART]
    return (before or claims)[-1]


def is_of_a_class(rows: list[dict[str, Any]]) -> bool:
    """Whether the results, of which there are some, are those of a class trainable."""
    return bool(rows) and not any(CHECKPOINT_NAME in row for row in rows)
