"""`FreezeThawScheduler`: the rule `FreezeThaw` under Ray Tune; a model says who goes on."""

from math import inf
from typing import Any, Unpack

from tune_stoppers.core import Action, Decision
from tune_stoppers.journal.lines import RESUMED
from tune_stoppers.result_keys import CHECKPOINT_NAME
from tune_stoppers.rules.sweep.freeze_thaw import FreezeThaw
from tune_stoppers.rules.sweep.pausing import Choice, PausingTrial
from tune_stoppers.surrogate.acquisition.freeze_thaw import (
    Candidate,
    FreezeThawAcquisition,
    StartedTrial,
)
from tune_stoppers.tune.live import Live
from tune_stoppers.tune.ray_internals.types import PAUSED, TERMINATED, Controller, Trial
from tune_stoppers.tune.schedulers.base import CONTINUE, Common
from tune_stoppers.tune.schedulers.expectations import Asked, Expectations, WithHistory
from tune_stoppers.tune.schedulers.pausing import PausingScheduler

Turn = tuple[int, bool, bool, bool, int]  # what a choice depends on


class Thawing(Live):
    """The model, and what has been found to be worth nothing."""

    def __init__(self, prior: Expectations | None) -> None:
        self.order = FreezeThawAcquisition(prior)
        self.turn = 0  # grows with whatever may change a choice
        self.idle_at: Turn | None = None  # at which there was nothing to do
        self.hopeless = False  # at the end, those that wait are not continued


class FreezeThawScheduler(WithHistory, PausingScheduler[FreezeThaw]):
    """At each rung and for each free worker: start a new trial or continue one, and which.

    ::

        FreezeThawScheduler(max_t=40)  # rungs at 2, 6, 18; stop_reason of one that waited:
        # "nothing else is left to run, and no trial that waits has 5% to become the best"

    `surrogate.acquisition.freeze_thaw` says how they are compared: by the probability to become
    the best, over what it takes to find out, a resume included. The model of all configurations
    behind it is told how every trial does. A trial that comes to a rung continues at once while
    none is worth more, else it is paused there. When no new trial will come, eight have reported
    and one has run to its end, those that wait with less than `least_chance` to become the best
    are given up.

    It gains with one worker or few, cheap checkpoints, and early losses that say much. Where early
    ranks lie, as under a long warm-up, or with many workers, `AutoScheduler` does better, and needs
    no checkpoints (benchmarks/results/small_sweeps.md has the figures).

    Checkpoints, new trials, searchers, Ray Train and result buffering: as `PausingScheduler` says.
    A searcher that suggests by itself is compared as if its next configuration were like any
    other; give it a limit, `max_concurrent_trials`, of at least twice the workers.

    Args:
        max_t: the horizon in units of `time_attr`; trials stop there.
        grace_period: the first rung; None: 4 % of `max_t`, rounded up where time comes in whole
            steps.
        reduction_factor: from a rung to the next, the time grows by this.
        least_chance: a trial that waits with a smaller probability to become the best is given up
            in the end; 0 to 1.
        history: earlier sweeps, as `AutoScheduler` takes them: the first trials are those of which
            they expect most, and the model begins there.
        on_nonfinite: a value that is not finite stops its trial at once and counts as worst at its
            next rung, unless this is "ignore", which leaves the report out.
        common: those of `SweepScheduler`.
    """

    def __init__(
        self,
        max_t: float,
        grace_period: float | None = None,
        reduction_factor: float = 3,
        *,
        least_chance: float = 0.05,
        history: Asked | None = None,
        **common: Unpack[Common],
    ) -> None:
        self.take_history(history)
        rule = FreezeThaw(
            max_t=max_t,
            grace_period=grace_period,
            reduction_factor=reduction_factor,
            least_chance=least_chance,
        )
        super().__init__(rule, **common)

    def _begin(self) -> None:
        super()._begin()
        self._thaw = Thawing(self._expectations)

    def on_change(self) -> None:
        """Choose anew."""
        self._thaw.turn += 1

    def act(
        self, controller: Controller, trial: Trial, result: dict[str, Any], decision: Decision
    ) -> str:
        """Pause at a rung, unless no other trial is worth more."""
        if decision.action is Action.PAUSE and result.get(CHECKPOINT_NAME):
            over = controller.search_alg.is_finished()
            trial_id, offer = self._best(over, arriving=trial.trial_id)
            if offer and trial_id == trial.trial_id and not self._declines(offer, over):
                self._sweep.note(trial_id, RESUMED, why=f"goes on at once: {offer.why}")
                return CONTINUE
        return super().act(controller, trial, result, decision)

    def goes_on_alone(self, controller: Controller, trial: Trial) -> bool:
        """Unless it would be given up for want of a chance."""
        return not self._least(controller.search_alg.is_finished())

    def decide(self, *, fresh: bool, over: bool, idle: bool) -> Choice | None:
        """The new trial or the paused one that is worth most; None: nothing is worth a worker."""
        at_work = len(self._live.workers.slots)  # a trial is PAUSED only once it has saved
        now = (self._thaw.turn, fresh, over, idle, at_work)
        if self._thaw.idle_at == now:
            return None  # Ray asks at every turn of its loop
        choice = self._choice(fresh, over, idle)
        by_itself = choice is not None and choice.move == "start" and not self._live.held
        self._thaw.idle_at = now if choice is None or by_itself else None
        return choice

    # -- inside --------------------------------------------------------------------------------

    def _choice(self, fresh: bool, over: bool, idle: bool) -> Choice | None:
        if self._thaw.hopeless and over and idle and not fresh:
            return self._last_one()
        trial_id, offer = self._best(over)
        keep = self.rule.keep
        if offer is None:
            return Choice("start", "", keep("no trial waits: a new one starts")) if fresh else None
        if trial_id in self._live.held:
            return Choice("start", trial_id, keep("{why}", why=offer.why))
        if self._declines(offer, over):
            if fresh:
                return Choice("start", "", keep("a new one promises more than those that wait"))
            if not idle:
                return None
            if over:
                self._thaw.hopeless = True
                return self._last_one()
        return Choice("resume", trial_id, keep("{why}", why=offer.why))

    def _last_one(self) -> Choice | None:
        """One of those that wait is given up: none is worth going on, and nothing will change it.

        They are not compared again for each that goes.
        """
        waiting = (trial_id for rung in self.record.paused for _, trial_id in rung)
        trial_id = next(waiting, None)
        if trial_id is None:
            return None
        text = (
            "nothing else is left to run, and no trial that waits has {least:.0%} to become the "
            "best"
        )
        return self.rule.give_up(trial_id, text, least=self.rule.least_chance)

    def _declines(self, offer: Candidate, over: bool) -> bool:
        """Whether what is offered, a trial that has begun, is not worth it."""
        if self._live.held:
            return False  # it was compared with those
        if over:
            return offer.probability < self._least(over)
        return offer.worth < self._thaw.order.worth_of_any(
            len(self.record.courses), self._first_rung
        )

    def _least(self, over: bool) -> float:
        """The probability below which a trial is not continued: 0 while few say what is usual.

        Also while none has run to its end: what ended early says nothing of those that wait.
        """
        few = len(self.record.courses) < self._thaw.order.least or not self.record.leader
        return self.rule.least_chance if over and not self._live.held and not few else 0.0

    @property
    def _first_rung(self) -> float:
        times = self.record.times
        return times[0] / self.rule.max_t if times else 1.0

    def _best(self, over: bool, arriving: str = "") -> tuple[str, Candidate | None]:
        """The trial to start or to continue with, and why; "", None if there is none."""
        begun, ids, awaited = [], [], []
        for trial_id, trial in self._live.trials.items():
            if trial_id in self._live.held:
                continue
            course = self.record.courses.get(trial_id)
            if course is not None:
                begun.append(self._begun(trial, course, trial_id == arriving))
                ids.append(trial_id)
            elif not trial.is_finished():
                awaited.append(trial.config)
        new = self._live.held.trials
        offer = self._thaw.order.choose(
            [trial.config for trial in new],
            begun,
            awaited,
            first_rung=self._first_rung,
            picks=len(ids) + sum(course.passed for course in self.record.courses.values()),
            arrives=bool(arriving),
            least_probability=self._least(over),
        )
        if offer is None:
            return "", None
        if offer.position < len(new):
            return new[offer.position].trial_id, offer
        return ids[offer.position - len(new)], offer

    def _begun(self, trial: Trial, course: PausingTrial, arrives: bool) -> StartedTrial:
        rungs, max_t = self.record.times, self.rule.max_t
        standing = self.standing(trial)
        assert standing is not None  # it has begun
        time = min(max(course.time, 0.0), max_t)
        over = trial.status == TERMINATED and trial.trial_id not in self.record.given_up
        settled = over and (self.rule.is_whole(self.record, trial.trial_id) or course.loss == inf)
        beyond = rungs[course.reached] if course.reached < len(rungs) else max_t
        resume = 0.0 if arrives else self.rule.resume_cost(self.record)
        return StartedTrial(
            config=trial.config,
            standing=standing._replace(ended=over and course.loss < inf),
            done=1.0 if settled else time / max_t,
            ahead=(max(beyond - time, 0.0) + resume) / max_t,
            beyond=(max_t - beyond) / max_t,
            waits=arrives or (course.paused and trial.status == PAUSED),
        )
