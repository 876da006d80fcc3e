"""A scheduler that can also say which of the new trials starts next."""

import logging
import math
import time
from typing import Any, Generic, Literal, TypeVar, Unpack

from tune_stoppers.core import SweepRule, require, require_choice
from tune_stoppers.journal.lines import STARTED
from tune_stoppers.surrogate.acquisition.lcb import LowerConfidenceBound
from tune_stoppers.surrogate.trial_scores import TrialLosses
from tune_stoppers.tune.live import Live
from tune_stoppers.tune.ray_internals.types import PAUSED, PENDING, Controller, Trial
from tune_stoppers.tune.schedulers.base import Common, SweepScheduler
from tune_stoppers.tune.schedulers.expectations import Asked, WithHistory
from tune_stoppers.tune.schedulers.pending_queue import PendingQueue, may_hold
from tune_stoppers.tune.schedulers.running import number_of
from tune_stoppers.tune.schedulers.workers import Workers

logger = logging.getLogger("tune_stoppers")

R = TypeVar("R")
Order = Literal["given", "model"]


class Starts(Live):
    """Who has started and who is held back."""

    def __init__(self, model: LowerConfidenceBound | None) -> None:
        self.model = model  # None: in the order given
        self.started: dict[str, Trial] = {}  # by id: all that Ray has added, but those held
        self.held = PendingQueue()
        self.workers = Workers()


class OrderedScheduler(WithHistory, SweepScheduler[R], Generic[R]):
    """A `SweepScheduler` whose new trials start in the order given, or in that of a model.

    Args:
        order: "given": Ray's order. "model": once eight trials have reported, the next to start is
            mostly the configuration that a model of those so far promises most of
            (`surrogate.acquisition.lcb`). New trials are held back for that, and Ray shows them as
            PAUSED. A searcher without a limit, such as a plain `OptunaSearch`, is left alone: it
            orders its trials itself.
        history: earlier sweeps, as `AutoScheduler` takes them, with order="model": the first trials
            are those of which they expect most, and the model begins there.
        dry_run: decisions are journalled, not taken, and trials start in the order given.
        common: those of `SweepScheduler`.
    """

    def __init__(
        self,
        rule: SweepRule[R],
        *,
        order: Order = "given",
        history: Asked | None = None,
        **common: Unpack[Common],
    ) -> None:
        name = type(self).__name__
        require_choice(f"{name} order", order, ("given", "model"))
        require(
            history is None or order == "model",
            f'{name} history needs order="model", got {order!r}: new trials start in the order '
            "given there.",
        )
        self.order = order
        self.take_history(history)
        super().__init__(rule, **common)

    def _begin(self) -> None:
        super()._begin()
        by_model = self.order == "model" and not self.dry_run
        self._live = Starts(LowerConfidenceBound(self._expectations) if by_model else None)

    def use_workers(self, count: int) -> None:
        """Take the cluster to run so many trials at a time: a replay has no Ray to ask."""
        self._live.workers.given = count

    @property
    def takes_history(self) -> bool:
        """Where a model orders the trials."""
        return self.order == "model"

    def standing(self, trial: Trial) -> TrialLosses | None:
        """How a trial does, as the model is told; None if it has not reported."""
        known = trial.metric_analysis.get(self._metric or "")
        if known is None:
            return None
        best = self.sign * known["min" if self.sign == 1 else "max"]
        return TrialLosses((), best if math.isfinite(best) else math.inf)

    def on_trial_adopted(self, controller: Controller, trial: Trial) -> None:
        """Hold back a new trial."""
        super().on_trial_adopted(controller, trial)
        if self._live.model is None:
            return
        trial_id = trial.trial_id
        known = self._memory.known(trial_id)
        begun = trial_id in self._live.started or known.started or known.time.step is not None
        if not begun and trial.status == PENDING and may_hold(controller.search_alg):
            self._live.held.hold(trial)
            return
        self._live.started[trial_id] = trial
        if trial.status == PENDING:
            self._live.workers.add(trial, time.monotonic(), chosen=begun)  # before a restore, say

    def on_trials_restored(self) -> None:
        """All trials that were there before a restore have been added, in the order of a set."""
        super().on_trials_restored()
        self._live.held.sort(number_of)
        self._live.workers.sort(self.turn_of)
        if self._live.model is not None:
            self._live.model.model.recall(self._memory.fit)

    def on_trial_complete(
        self, controller: Controller, trial: Trial, result: dict[str, Any]
    ) -> None:
        """Record the last report of a trial that ended by itself or by a stopper."""
        super().on_trial_complete(controller, trial, result)
        self._live.held.drop(trial.trial_id)

    def on_trial_remove(self, controller: Controller, trial: Trial) -> None:
        """A trial that was never run, or is paused, is dropped."""
        super().on_trial_remove(controller, trial)
        self._live.held.drop(trial.trial_id)

    def choose_trial_to_run(self, controller: Controller) -> Trial | None:
        """The trial for the next worker, if there is room for one more; else who waits for it."""
        if self._live.model is None:
            return super().choose_trial_to_run(controller)
        self._begin_to_choose(controller)
        now = time.monotonic()
        self._live.workers.trials = len(self._live.held) + len(self._live.started)
        self._live.workers.look(now)
        first = self._live.workers.for_process(controller, now)
        if first is not None:
            return first
        if not self._live.workers.room or self._sweep.over:
            return self._live.workers.next
        trial = self._paused() or (self._pick(self._live.model) if self._live.held else None)
        if trial is None:
            return self._live.workers.next
        self._live.started[trial.trial_id] = trial
        self._live.workers.add(trial, now, chosen=True)
        return trial

    def _paused(self) -> Trial | None:
        """A trial that somebody has paused, Ray's `ResourceChangingScheduler` for one, or None."""
        return next((t for t in self._live.started.values() if t.status == PAUSED), None)

    def _pick(self, model: LowerConfidenceBound) -> Trial:
        reported, awaited = [], []
        for trial in sorted(self._live.started.values(), key=number_of):  # also after a restore
            standing = self.standing(trial)
            if standing is not None:
                reported.append((trial.config, standing))
            elif not trial.is_finished():
                awaited.append(trial.config)
        waiting = [trial.config for trial in self._live.held.trials]
        pick = model.choose(waiting, reported, awaited, picks=len(self._live.started))
        trial = self._live.held.release(pick.position)
        fit, self._memory.fit = self._memory.fit, model.model.fit or self._memory.fit
        new: dict[str, Any] = {} if self._memory.fit == fit else {"fit": self._memory.fit}
        known = [trial, *self._live.started.values(), *self._live.held.trials]
        new |= self.told_of_start(trial, sorted(known, key=number_of))
        self._sweep.note(trial.trial_id, STARTED, why=pick.why, **new)
        return trial
