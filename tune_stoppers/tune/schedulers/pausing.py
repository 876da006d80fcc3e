"""What the schedulers that pause trials share: holding back, resuming, carrying out the rule."""

import logging
import os
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any, Generic, TypeVar, Unpack

from tune_stoppers.core import Action, Decision
from tune_stoppers.journal.lines import GIVEN_UP, RESUMED, STARTED
from tune_stoppers.result_keys import CHECKPOINT_NAME
from tune_stoppers.rules.sweep.pausing import Choice, PausingRecord, PausingRule
from tune_stoppers.surrogate.trial_scores import TrialLosses
from tune_stoppers.tune.class_checkpoints import Saving, saves_when_asked
from tune_stoppers.tune.ray_internals.controller import (
    ask_for,
    hide_paused,
    note_never_run,
    note_reason,
    request_of,
)
from tune_stoppers.tune.ray_internals.train_runs import REFUSAL, has_train_workers
from tune_stoppers.tune.ray_internals.types import (
    PAUSED,
    PENDING,
    Controller,
    Trial,
)
from tune_stoppers.tune.schedulers.base import CONTINUE, Common, SweepScheduler
from tune_stoppers.tune.schedulers.pausing_state import Pausing
from tune_stoppers.tune.schedulers.pending_queue import (
    is_limited,
    limit_only_what_runs,
    may_hold,
    most_at_a_time,
)
from tune_stoppers.tune.schedulers.running import number_of

logger = logging.getLogger("tune_stoppers")

BUFFER = "TUNE_RESULT_BUFFER_LENGTH"
AT_PAUSE = "saved when paused"  # the checkpoint of a class trainable that has no storage

P = TypeVar("P", bound=PausingRule)


class PausingScheduler(SweepScheduler[PausingRecord], Generic[P]):
    """A scheduler that pauses trials at rungs; subclasses say what a free worker does.

    A trial is paused only at a report that came with a checkpoint, as it would start from zero
    otherwise; one that reports none runs to the end. A class trainable with `save_checkpoint`
    can be paused at any report: Ray saves it then. Nor is a trial paused
    where nothing else could use its worker: one trial alone, trials that all have a worker of their
    own, or a `ConcurrencyLimiter` with `max_concurrent=1`.

    New trials: Ray starts whatever is pending, and takes many samples at once. They are therefore
    held back (Ray shows them as PAUSED), and started as the cluster has room. One is always chosen
    ahead, waiting for the next free worker. A searcher without a limit, such as a plain
    `OptunaSearch`, would be asked for all its samples at once if they were held back: its trials
    start by themselves, and paused ones take turns with them.

    `max_concurrent_trials`: of a grid or of random samples, so many run at a time, and those that
    wait do not count. For a searcher Ray makes a `ConcurrencyLimiter` of it, and there they do:
    where paused trials use up the limit, the worst of them is given up for each new one. Give a
    searcher a limit of at least twice the workers.

    Trials of Ray Train are refused: Tune does not see their checkpoints, and a pause would leave
    their workers running. So is `TUNE_RESULT_BUFFER_LENGTH` > 1: a trial could not be paused at
    its rung.
    """

    needs_pauses = True  # False: it has something else for trials that cannot be paused

    def __init__(self, rule: P, **common: Unpack[Common]) -> None:
        super().__init__(rule, **common)
        self.rule: P = rule
        self._clock: Callable[[], float] = time.monotonic

    @abstractmethod
    def decide(self, *, fresh: bool, over: bool, idle: bool) -> Choice | None:
        """What a free worker does, as `Promotion.choose` has it; None: it waits."""

    @abstractmethod
    def goes_on_alone(self, controller: Controller, trial: Trial) -> bool:
        """Whether a trial that is due for a pause continues where nothing else needs its worker."""

    def is_alone(self, controller: Controller, trial: Trial) -> bool:
        """Whether no other trial could make use of its worker if it were paused.

        None waits, and none will come before one has ended. Or all have a worker of their own.
        """
        over = controller.search_alg.is_finished()
        if over and len(self._live.trials) <= self._live.workers.room_for_such(trial):
            return True
        if self._live.held or not (over or is_limited(controller.search_alg)):
            return False
        waits = (PENDING, PAUSED)
        return not any(t.status in waits for t in self._live.trials.values() if t is not trial)

    def _begin(self) -> None:
        super()._begin()
        self._live = Pausing()

    def use_clock(self, clock: Callable[[], float]) -> None:
        """Measure the cost of starts by another clock: a replay has its own time."""
        self._clock = clock

    def use_workers(self, count: int) -> None:
        """Take the cluster to run so many trials at a time: a replay has no Ray to ask."""
        self._live.workers.given = count

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """As the base does; `ValueError` under result buffering."""
        length = os.environ.get(BUFFER, "1")
        if length.strip() not in ("", "0", "1"):
            raise ValueError(
                f"{self.name} pauses trials at their rungs and needs every result at once, got "
                f"{BUFFER}={length}: unset it."
            )
        return super().set_search_properties(metric, mode, **spec)

    def on_trial_adopted(self, controller: Controller, trial: Trial) -> None:
        """Hold back a new trial, and one that was paused before a restore."""
        self._live.trials[trial.trial_id] = trial
        self._live.requests.setdefault(trial.trial_id, request_of(trial))
        if trial.status != PENDING or self.dry_run:
            return
        trial_id, record = trial.trial_id, self.record
        limit_only_what_runs(controller.search_alg, trial_id)
        again = trial_id in self._live.met
        self._live.met.add(trial_id)
        begun = again or trial_id in record.courses or self._memory.known(trial_id).started
        if not again and self.rule.is_paused(record, trial_id):
            trial.set_status(PAUSED)
        elif not begun and may_hold(controller.search_alg):
            self._live.makes_room = False
            self._live.held.hold(trial)
        else:
            self._live.workers.add(trial, self._clock(), chosen=begun)

    def on_trials_restored(self) -> None:
        """All trials that were there before a restore have been added, in the order of a set."""
        super().on_trials_restored()
        self._live.trials = {
            t.trial_id: t for t in sorted(self._live.trials.values(), key=number_of)
        }
        self._live.held.sort(number_of)
        self._live.workers.sort(self.turn_of)

    def on_trial_result(self, controller: Controller, trial: Trial, result: dict[str, Any]) -> str:
        """Judge a report; Ray's name for the action."""
        if has_train_workers(result) and self.needs_pauses:
            raise ValueError(f"{self.name} cannot pause trial {trial.trial_id}: {REFUSAL}.")
        if CHECKPOINT_NAME not in result and trial.storage is None and saves_when_asked(trial):
            result[CHECKPOINT_NAME] = AT_PAUSE  # where it would have a name is not known
        self._measure(trial.trial_id, result)
        action = super().on_trial_result(controller, trial, result)
        gap = self.needs_pauses and not self.dry_run and not result.get(CHECKPOINT_NAME)
        if gap and not self._live.warned and self.rule.is_due(self.record, trial.trial_id):
            self.warn_of_gap(trial.trial_id)
        hide_paused(controller)
        return action

    def has_checkpoint(self, trial: Trial, saving: Saving) -> bool:
        """Ray saves a class trainable that can be saved when it is paused."""
        return saving.sure or saves_when_asked(trial)

    def act(
        self, controller: Controller, trial: Trial, result: dict[str, Any], decision: Decision
    ) -> str:
        """Pause, unless the trial is saving: it is paused at its next checkpoint then."""
        if decision.action is Action.PAUSE:
            if trial.is_saving:
                return CONTINUE
            if self.is_alone(controller, trial) and self.goes_on_alone(controller, trial):
                self._sweep.note(
                    trial.trial_id, RESUMED, why="continues at once: no other needs a worker"
                )
                return CONTINUE
            self._sweep.note(trial.trial_id, "paused")
            self._live.pace.pausing(trial.trial_id, self._clock())
        return super().act(controller, trial, result, decision)

    def on_trial_complete(
        self, controller: Controller, trial: Trial, result: dict[str, Any]
    ) -> None:
        """Record the last report of a trial that ended by itself or by a stopper."""
        super().on_trial_complete(controller, trial, result)
        self._drop(trial.trial_id)

    def on_trial_error(self, controller: Controller, trial: Trial) -> None:
        """A crash or a lost node is no evidence against a trial; it may come back."""
        super().on_trial_error(controller, trial)
        self._live.pace.drop(trial.trial_id)

    def on_trial_remove(self, controller: Controller, trial: Trial) -> None:
        """A trial that was never run, or is paused, is dropped."""
        super().on_trial_remove(controller, trial)
        self._drop(trial.trial_id)

    def choose_trial_to_run(self, controller: Controller) -> Trial | None:
        """The trial for the next worker, if there is room for one more; else who waits for it."""
        self._begin_to_choose(controller)
        if self.dry_run or self._sweep.over:
            return super().choose_trial_to_run(controller)
        now = self._clock()
        self._live.workers.trials = len(self._live.trials)
        self._look(now)
        self._live.workers.limit = most_at_a_time(controller.search_alg)
        first = self._live.workers.for_process(controller, now)
        if first is not None:
            return first
        chosen = self._choose(controller) if self._live.workers.room else None
        if chosen is None:
            return self._live.workers.next
        self._live.workers.add(chosen, now, chosen=True)
        self._live.workers.for_process(controller, now)  # it may get one at once
        return chosen

    def debug_string(self) -> str:
        """One line: trials at rungs, how many of them wait, and what a resume costs."""
        rungs = ", ".join(
            f"{time:g}: {len(rung.losses)} ({len(waiting)} wait)"
            for time, rung, waiting in zip(
                self.record.times, self.record.rungs, self.record.paused, strict=True
            )
        )
        cost, held = self.rule.resume_cost(self.record), len(self._live.held)
        return (
            f"{self.name}: trials recorded at rungs {{{rungs}}}; {held} not started; "
            f"a resume costs {cost:.3g} of {self.time_attr}"
        )

    # -- inside --------------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        """See who has left a worker, and which of them have only been interrupted.

        Ray's `ResourceChangingScheduler` pauses a trial to give it what others have left, or to
        take that away again.
        """
        for trial_id in self._live.workers.look(now):
            trial = self._live.trials[trial_id]
            self._live.pace.left(trial_id, now)
            if trial.status == PAUSED and not self.rule.is_paused(self.record, trial_id):
                self._live.interrupted[trial_id] = trial
                self._live.pace.drop(trial_id)

    def _choose(self, controller: Controller) -> Trial | None:
        """An interrupted, paused or held trial to run next, or None."""
        if self._live.interrupted:
            return self._live.interrupted.pop(next(iter(self._live.interrupted)))
        search, workers = controller.search_alg, self._live.workers
        over, holding = search.is_finished(), may_hold(search)
        more_come = not over and not holding and not workers.idle  # by themselves
        fresh = bool(self._live.held) or more_come
        while True:
            choice = self.decide(fresh=fresh, over=over, idle=workers.idle)
            if choice is None or choice.move != "give up":
                break
            self._give_up(controller, choice)
        if choice is None:
            if is_limited(search) and not (over or fresh or self._live.makes_room):
                self._make_room(controller)
            return None
        if choice.move == "start":
            return self._start(choice) if self._live.held else None
        trial = self._live.trials[choice.trial_id]
        if trial.status != PAUSED:
            return None  # its pause is still being carried out
        if not workers.idle:  # what another scheduler gave it beside may be in use by now
            ask_for(trial, self._live.requests[choice.trial_id])
        self._note(RESUMED, choice)
        return trial

    def _start(self, choice: Choice) -> Trial:
        """The new trial that is chosen, or the next one given."""
        trial = self._live.trials[choice.trial_id or self._live.held.trials[0].trial_id]
        told = self.told_of_start(trial, list(self._live.trials.values()))
        self._note(STARTED, choice._replace(trial_id=trial.trial_id), **told)
        return self._live.held.take(trial.trial_id)

    def _note(self, event: str, choice: Choice, **more: Any) -> None:
        """Journal that a trial starts or is resumed, and why."""
        why = choice.decision.say(self.sign)
        self._sweep.note(choice.trial_id, event, why=why, **self.new_fit(), **more)

    def told_of_start(self, trial: Trial, known: Sequence[Trial]) -> dict[str, Any]:
        """What else the journal is to say of a trial that starts, one of those known."""
        return {}

    def standing(self, trial: Trial) -> TrialLosses | None:
        """The trial's losses at the rungs that it has come to, and its best; None: no report."""
        course = self.record.courses.get(trial.trial_id)
        if course is None:
            return None
        at = (rung.of_trial.get(trial.trial_id) for rung in self.record.rungs)
        marks = takewhile(lambda loss: loss is not None, at)
        return TrialLosses(tuple(loss for loss in marks if loss is not None), course.best)

    def new_fit(self) -> dict[str, Any]:
        """What a model is to begin with after a restore, if that has changed."""
        return {}

    def _make_room(self, controller: Controller) -> None:
        """Give a paused trial up that keeps the searcher from suggesting another one."""
        choice = self.rule.worst(self.record)
        if choice is not None and self._live.trials[choice.trial_id].status == PAUSED:
            self._live.makes_room = True  # until the searcher has made use of it
            self._give_up(controller, choice)

    def _give_up(self, controller: Controller, choice: Choice) -> None:
        trial = self._live.trials[choice.trial_id]
        self.decisions[choice.trial_id] = choice.decision
        why = self.explain(choice.trial_id)
        self._sweep.note(choice.trial_id, GIVEN_UP, why=why)
        note_never_run(trial, why)
        note_reason(trial, why)
        controller.stop_trial(trial)

    def _measure(self, trial_id: str, result: Mapping[str, Any]) -> None:
        step = result.get(self.time_attr)
        if not isinstance(step, (int, float)):
            return
        since = self._live.workers.since(trial_id)
        first = trial_id not in self.record.courses
        cost = self._live.pace.report(trial_id, step, self._clock(), since, first=first)
        if cost is not None:
            self._sweep.note(trial_id, "start cost" if cost.of_start else "cost", cost=cost.units)

    def _drop(self, trial_id: str) -> None:
        self._live.held.drop(trial_id)
        self._live.pace.drop(trial_id)
        self._live.interrupted.pop(trial_id, None)

    def warn_of_gap(self, trial_id: str) -> None:
        """Say, once, that a trial goes on where it could have been paused."""
        if not self._live.warned:
            self._live.warned = True
            logger.warning(
                "%s: trial %s came to a rung without a checkpoint. Such trials run until they "
                "report one: report a checkpoint with every evaluation "
                "(TuneCallback: checkpoint_every=1).",
                *(self.name, trial_id),
            )
