"""`PromotionASHAScheduler`: the rule `Promotion` under Ray Tune."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Unpack

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import ConcurrencyLimiter, SearchGenerator
from ray.tune.search.basic_variant import BasicVariantGenerator

from tune_stoppers.core import Action, Decision
from tune_stoppers.rules.promotion import Choice, Promotion, Record
from tune_stoppers.tune.reader import CHECKPOINT_NAME, STOP_REASON
from tune_stoppers.tune.schedulers.base import Common, SweepScheduler
from tune_stoppers.tune.schedulers.pace import Pace
from tune_stoppers.tune.schedulers.workers import Workers

logger = logging.getLogger("tune_stoppers")

BUFFER = "TUNE_RESULT_BUFFER_LENGTH"
AT_PAUSE = "saved when paused"  # a class trainable's checkpoint


class PromotionASHAScheduler(SweepScheduler[Record]):
    """Pauses trials at rungs and promotes the best; the others wait, and are given up at the end.

    `rules.promotion.Promotion` says exactly who is paused, promoted and given up. For cheap
    checkpoints and few workers: where a resume costs more than a fifth of a report or so, or with
    many workers, `BoundASHAScheduler` finds as much and needs no checkpoints.

    A trial is paused only at a report that came with a checkpoint, as it would start from zero
    otherwise; one that reports none goes on to the end. Report a checkpoint with each evaluation.

    New trials: Ray starts whatever is pending, and takes many samples at once. They are therefore
    held back (Ray shows them as PAUSED), and started one at a time where no paused trial is to be
    promoted. One trial is always chosen ahead, waiting for the next free worker, so a promotion
    may come one trial late. A searcher without a limit, such as a plain `OptunaSearch`, would be
    asked for all its samples at once if they were held back: its trials start by themselves, and
    promotions take turns with them. With `max_concurrent_trials` or a `ConcurrencyLimiter` paused
    trials count: where they leave the searcher no place while a worker is free, the worst is
    given up. Give a limit of at least twice the workers then.

    Trials of Ray Train (`TorchTrainer` and others started in a Tune function) are refused: Tune
    does not see their checkpoints, and a pause would leave their workers running. So is
    `TUNE_RESULT_BUFFER_LENGTH` > 1: a trial could not be paused at its rung.

    Args:
        max_t: the horizon in units of `time_attr`; trials stop there.
        grace_period: the first rung; None: 4 % of `max_t`, rounded up if that is an int.
        reduction_factor: 1/`reduction_factor` of the trials at a rung are promoted.
        pen: the first so many trials at a rung wait for each other, before any is promoted.
        resume_share: a resume that takes more than this share of the way to the next rung, by the
            mean of those measured, is avoided.
        common: those of `SweepScheduler`. A value that is not finite stops its trial at once and
            counts as worst at its next rung, unless `on_nonfinite` is "ignore".
    """

    def __init__(
        self,
        max_t: float,
        grace_period: float | None = None,
        reduction_factor: float = 3,
        *,
        pen: int = 9,
        resume_share: float = 0.25,
        **common: Unpack[Common],
    ) -> None:
        rule = Promotion(
            max_t=max_t,
            grace_period=grace_period,
            reduction_factor=reduction_factor,
            pen=pen,
            resume_share=resume_share,
        )
        super().__init__(rule, **common)
        self.rule: Promotion = rule
        self._clock: Callable[[], float] = time.monotonic
        self._begin()

    def _begin(self) -> None:
        self._trials: dict[str, Any] = {}  # those that have not ended
        self._held: dict[str, Any] = {}  # new ones, in Ray's order
        self._workers = Workers()
        self._pace = Pace()
        self._warned = False

    def __getstate__(self) -> dict[str, Any]:
        """The scheduler as constructed."""
        mine = ("_trials", "_held", "_workers", "_pace", "_warned")
        return {k: v for k, v in super().__getstate__().items() if k not in mine}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def use_clock(self, clock: Callable[[], float]) -> None:
        """Measure the cost of resumes by another clock: a replay has its own time."""
        self._clock = clock

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """As the base does; `ValueError` under result buffering."""
        length = os.environ.get(BUFFER, "1")
        if length.strip() not in ("", "0", "1"):
            raise ValueError(
                f"{self.name} pauses trials at their rungs and needs every result at once, got "
                f"{BUFFER}={length}: unset it."
            )
        return super().set_search_properties(metric, mode, **spec)

    def adopted(self, controller: Any, trial: Any) -> None:
        """Hold back a new trial, and one that was paused before a restore."""
        again = trial.trial_id in self._trials
        self._trials[trial.trial_id] = trial
        if trial.status != Trial.PENDING:
            return
        if not again and self.rule.is_paused(self.record, trial.trial_id):
            trial.set_status(Trial.PAUSED)
        elif not again and self._is_new(trial) and self._may_hold(controller):
            trial.init_local_path()  # without it Ray's ResultGrid fails if it is never run
            trial.set_status(Trial.PAUSED)
            self._held[trial.trial_id] = trial
        else:
            self._workers.add(trial, self._clock(), chosen=False)

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Judge a report; Ray's name for the action."""
        self._refuse_train(trial, result)
        result.setdefault(CHECKPOINT_NAME, AT_PAUSE)  # a class trainable does not say: it saves
        step = result.get(self.time_attr)
        if isinstance(step, (int, float)):
            cost = self._pace.report(trial.trial_id, step, self._clock())
            if cost is not None:
                self._note(trial.trial_id, "cost", cost=cost)
        action = super().on_trial_result(controller, trial, result)
        if not result[CHECKPOINT_NAME] and self.rule.is_due(self.record, trial.trial_id):
            self._warn(trial)
        return action

    def act(self, controller: Any, trial: Any, result: dict[str, Any], decision: Decision) -> str:
        """Pause, unless the trial is saving: it is paused at its next checkpoint then."""
        if decision.action is Action.PAUSE:
            if trial.is_saving:
                return str(TrialScheduler.CONTINUE)
            self._note(trial.trial_id, "paused")
            self._pace.pausing(trial.trial_id, self._clock())
        return super().act(controller, trial, result, decision)

    def on_trial_complete(self, controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Record the last report of a trial that ended by itself or by a stopper."""
        super().on_trial_complete(controller, trial, result)
        self._drop(trial.trial_id)

    def on_trial_error(self, controller: Any, trial: Any) -> None:
        """A crash or a lost node is no evidence against a trial; it may come back."""
        super().on_trial_error(controller, trial)
        self._pace.drop(trial.trial_id)

    def on_trial_remove(self, controller: Any, trial: Any) -> None:
        """A trial that was never run, or is paused, is dropped."""
        super().on_trial_remove(controller, trial)
        self._drop(trial.trial_id)

    def choose_trial_to_run(self, controller: Any) -> Any:
        """The trial for the next worker, once there is room; else the one that waits for it."""
        self._memory.settle()
        if self.dry_run:
            return super().choose_trial_to_run(controller)
        now = self._clock()
        for place in self._workers.look(now):
            self._pace.left(place.trial.trial_id, now)
        for trial in self._workers.started():
            self._pace.started(...)
        if self._workers.room:
            self._choose(controller, now)
        return self._workers.next
