"""`AutoScheduler`: what to take without choosing.

Over 350 lines, as all that follows from one comparison is to be read in one place.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Unpack

from tune_stoppers.comparisons import AT_TARGET, EXPECTED, Said, numbers_of, text_of
from tune_stoppers.core import Action, Decision
from tune_stoppers.journal.lines import GIVEN_UP, RESUMED
from tune_stoppers.result_keys import CHECKPOINT_NAME
from tune_stoppers.rules.sweep.expected_improvement import (
    FORESEEN,
    SIGNALS,
    CurvesRecord,
    ExpectedImprovement,
)
from tune_stoppers.rules.sweep.pausing import Choice
from tune_stoppers.surrogate.acquisition.expected_improvement import Offer
from tune_stoppers.surrogate.prior import NEXT_GIVEN, most_expected, told
from tune_stoppers.tune.class_checkpoints import saves_when_asked
from tune_stoppers.tune.ray_internals.types import Controller, Trial
from tune_stoppers.tune.schedulers.base import CONTINUE, STOP, Common
from tune_stoppers.tune.schedulers.beliefs import Beliefs
from tune_stoppers.tune.schedulers.expectations import Asked, WithHistory
from tune_stoppers.tune.schedulers.pausing import PausingScheduler

NEXT_IN_ORDER = 2  # of the first trials with a history, one in so many is the next given
FEWEST = 8  # that must have reported before the sweep may end
# A trial that cannot be paused is stopped from this share of the horizon on, once so many have
# reported, with less than this probability to pass the best, or this expected improvement.
LEAST_SHARE, FEWEST_TO_STOP, LEAST_CHANCE, LEAST_GAIN = 1 / 12, 4, 0.3, 0.003

NO_GAIN = (
    "no trial is expected to improve the best by more than {least:.2g} of its distance to the "
    "median trial"
)


class AutoScheduler(WithHistory, PausingScheduler[ExpectedImprovement]):
    """Gives each worker to the trial that is expected to improve most on the best, per cost.

    ::

        AutoScheduler(max_t=40)  # trials of 40 evaluations; stop_reason of one that waited:
        # "no trial is expected to improve the best by more than 0.01 of its distance to the
        # median trial"

    A model of all configurations and their curves says where each trial is expected to end
    (`surrogate.joint_model`), learning from this sweep, and from earlier ones if given. Whenever a
    worker is free, and whenever a trial comes to a rung, the new trials, the paused ones and the
    one that has just reported are compared by the improvement that can be expected of each
    (`surrogate.acquisition.expected_improvement`): the best of them runs, the others wait. First
    comes the trial with the best loss so far, while anything is expected of it, unless over 80 new
    ones wait. What starting and resuming a trial costs is measured and counts; of a trial that has
    diverged nothing is expected. Trials that wait can be resumed as long as the sweep runs. It ends
    when `floor` of all training is done, one trial has run to its end, and no trial is expected to
    improve the best loss by `least_gain` of what lies between the best and the median trial; those
    that wait then are given up, and so are those not started. Where trials end by themselves at a
    target, as four of them have shown (`surrogate.targets`), none is expected to end below those.

    The model is checked as the sweep goes: where trials end more than 1.75 times as far from where
    they were expected as it believes (`JointModel.surprise`), it is not relied on. All trials then
    go on to a quarter of the horizon, the better half of them to half of it, and the better half of
    those to the end; the reasons say so.

    A trial can be paused only at a report with a checkpoint, so report one with each evaluation; at
    others it goes on, as one warning says. One that has diverged, in two reports running and once
    any has come half the way, is stopped there: where only improvements are saved it would have no
    other.
    Where no trial reports checkpoints nothing can be paused: a trial is stopped at a rung where it
    has less than 30 % to become the best and a new trial is worth twice as much, or, once one has
    run to its end, where it promises next to nothing.

    New trials are held back, and Ray shows them as PAUSED; searchers, class trainables and result
    buffering: as `PausingScheduler` says. Tune sees no checkpoints of trials of Ray Train: they are
    stopped, as those without.

    Args:
        max_t: the horizon in units of `time_attr`; trials stop there.
        grace_period: the first rung; None: a 24th of `max_t`, rounded up where time comes in whole
            steps.
        least_gain: the sweep ends where no trial is expected to gain more than this share of the
            distance between the best and the median trial; at least 0;
            None: 0.32 over the number of trials, but 0.01 to 0.04.
        floor: the share of all training, 0 to 1, that is done before it may end so.
        signals: names of what trials may report besides, of which lower is better; the first that
            a report has counts. Where the metric is coarse, such as an accuracy on fifty items, it
            tells trials apart that have the same (`surrogate.signals`).
        history: earlier sweeps, as `tune_stoppers.history.History.of` takes them: folders of
            experiments, recorded sweeps, or "lora". What they expect of the configurations is
            where the model begins; where this sweep contradicts it, it counts for less. A path
            that cannot be read is a `ValueError`; `said_of_history` tells what was used.
        time_attr: what counts as time; "progress" with max_t=1.0 compares trials of different
            length at equal progress.
        common: those of `SweepScheduler`.
    """

    needs_pauses = False

    def __init__(
        self,
        max_t: float,
        grace_period: float | None = None,
        *,
        least_gain: float | None = None,
        floor: float = 0.25,
        signals: Sequence[str] = SIGNALS,
        history: Asked | None = None,
        **common: Unpack[Common],
    ) -> None:
        self.take_history(history)
        rule = ExpectedImprovement(
            max_t=max_t,
            grace_period=grace_period,
            least_gain=least_gain,
            floor=floor,
            signals=tuple(signals),
        )
        super().__init__(rule, **common)

    def _begin(self) -> None:
        super()._begin()
        self._beliefs = Beliefs(self._expectations)

    def on_change(self) -> None:
        """Choose anew."""
        self._beliefs.turn += 1

    def on_trial_result(self, controller: Controller, trial: Trial, result: dict[str, Any]) -> str:
        """Judge a report; any may change what is expected of all, for a worker that waits."""
        self._beliefs.turn += 1
        return super().on_trial_result(controller, trial, result)

    def on_trials_restored(self) -> None:
        """All trials that were there before a restore have been added, in the order of a set."""
        super().on_trials_restored()
        self._beliefs.order.model.recall(self._memory.fit)

    def act(
        self, controller: Controller, trial: Trial, result: dict[str, Any], decision: Decision
    ) -> str:
        """At a rung: go on if no other trial is worth more, else pause, or stop."""
        if decision.action is not Action.PAUSE:
            return super().act(controller, trial, result, decision)
        if bool(result.get(CHECKPOINT_NAME)) or saves_when_asked(trial):
            said = self._compare(arriving=trial)
            if said.misleads:
                halves = self.rule.halve(self.record, trial.trial_id, said.error)
                if halves.action is Action.CONTINUE:
                    self._resume(trial.trial_id, halves)
                    return CONTINUE
                return super().act(controller, trial, result, halves)
            offer = said.compared.best if said.compared is not None else None
            over = controller.search_alg.is_finished()
            if (
                offer is None
                or said.trials[offer.place] is not trial
                or self._is_over(said)
                or self._may_idle(said, offer, others=True, over=over)
            ):
                return super().act(controller, trial, result, decision)
            self._resume(trial.trial_id, self._keep(offer))
            return CONTINUE
        if self._curves.saves:
            self.warn_of_gap(trial.trial_id)
            return self._stop_if_diverged(trial)
        return self._stop_or_continue(trial)

    def goes_on_alone(self, controller: Controller, trial: Trial) -> bool:
        """Unless nothing more is expected of it."""
        return not self._is_over(self._compare(arriving=trial))

    def decide(self, *, fresh: bool, over: bool, idle: bool) -> Choice | None:
        """The new trial or the paused one that is worth most; None: nothing is worth a worker."""
        if self._beliefs.over:
            return self._last_one(self._beliefs.over)
        said = self._compare()
        if said.misleads:
            choice = self._halve(said, fresh)
            if choice is None and over and idle:
                return self._last_one(halving=said)
            self._beliefs.turn += choice is not None
            return choice
        if over and self._is_over(said):
            if not idle:
                return None
            at_target = said.compared is not None and said.compared.at_target
            self._beliefs.over = (AT_TARGET if at_target else "") + NO_GAIN
            return self._last_one(self._beliefs.over)
        if said.compared and self._may_idle(said, said.compared.best, others=not idle, over=over):
            return None
        choice = self._choice(said, fresh)
        self._beliefs.turn += choice is not None
        return choice

    # -- inside --------------------------------------------------------------------------------

    @property
    def _least_gain(self) -> float:
        return self.rule.least_of(len(self._live.trials))

    @property
    def _curves(self) -> CurvesRecord:
        record = self.record
        assert isinstance(record, CurvesRecord)
        return record

    def _halve(self, said: Said[Trial], fresh: bool) -> Choice | None:
        """Whoever is in the better half is resumed, the furthest first; then new ones start."""
        for rung in reversed(self.record.paused):
            for _, trial_id in rung:
                halves = self.rule.halve(self.record, trial_id, said.error)
                if halves.action is Action.CONTINUE:
                    return Choice("resume", trial_id, halves)
        why = self.rule.keep(FORESEEN + "in the order given", error=said.error)
        return Choice("start", "", why) if fresh else None

    def _choice(self, said: Said[Trial], fresh: bool) -> Choice | None:
        if said.compared is None:
            promising = self._expected_most()
            if promising is not None:
                return promising
            why = self.rule.keep("too little is known to compare: in the order given")
            waits = next((i for rung in self.record.paused for _, i in rung), None)
            if fresh or waits is None:
                return Choice("start", "", why) if fresh else None
            return Choice("resume", waits, why)
        offer = said.compared.best
        if offer.place < said.new:
            return self._starts(said.trials[offer.place], offer)
        unlikely = offer.chance * (len(self.record.courses) + 1) < 1 and not offer.leads
        if fresh and not said.new and unlikely:
            return Choice(
                "start", "", self.rule.keep("a new one promises more than those that wait")
            )
        return Choice("resume", said.trials[offer.place].trial_id, self._keep(offer))

    def _expected_most(self) -> Choice | None:
        """To start the new trial of which the history expects most, while nothing else is known."""
        held, known = self._live.held.trials, self._live.trials
        expected = self.expected_of(held, known.values())
        if expected is None or not held:
            return None
        place = most_expected(expected, len(known) - len(held), NEXT_IN_ORDER)
        why = NEXT_GIVEN.format(every=NEXT_IN_ORDER)
        if place is not None:
            why = f"{told(expected[place])}, most of all that wait"
        return Choice("start", held[place or 0].trial_id, self.rule.keep("{why}", why=why))

    def _starts(self, trial: Trial, offer: Offer) -> Choice:
        """To start a new trial, and what earlier sweeps expect of it."""
        expected = self.expected_of([trial], self._live.trials.values())
        if expected is None:
            return Choice("start", trial.trial_id, self._keep(offer))
        why = self.rule.keep(
            text_of(offer) + "; {earlier}", **numbers_of(offer), earlier=told(expected[0])
        )
        return Choice("start", trial.trial_id, why)

    def _keep(self, offer: Offer) -> Decision:
        return self.rule.keep(text_of(offer), **numbers_of(offer))

    def _compare(self, arriving: Trial | None = None) -> Said[Trial]:
        """What a worker could do: now, or with the trial that has just come to a rung."""
        return self._beliefs.compare(self.rule, self._curves, self._live, arriving)

    def _is_over(self, said: Said[Trial]) -> bool:
        """Whether what is still expected of any trial is not worth going on."""
        record, count = self.record, len(self._live.trials)
        if said.compared is None or said.misleads:
            return False
        if not (record.leader or said.compared.at_target):
            return False
        if len(record.courses) < min(FEWEST, count):
            return False
        if not self._floor_is_done(said):
            return False
        return said.compared.most_gain < said.compared.least_gain

    def _floor_is_done(self, said: Said[Trial]) -> bool:
        """Whether all trials together have trained as much as is done in any case.

        Where trials end at a target, one that has ended has done all that it had to.
        """
        at_target = said.compared is not None and said.compared.at_target
        whole, done = self.rule.max_t, 0.0
        for trial_id, course in self.record.courses.items():
            ended = at_target and trial_id in self.record.ended
            done += whole if ended else min(max(course.time, 0.0), whole)
        return done >= self.rule.floor * len(self._live.trials) * whole

    def _may_idle(self, said: Said[Trial], offer: Offer, *, others: bool, over: bool) -> bool:
        """Whether a worker rather waits for what the others come to: nothing promises enough.

        Without this the first trials would all run to their ends where workers are many. Below the
        floor a worker waits only for what has diverged: the work is done in any case. While the
        last trials make their first report, nothing that promises too little goes on meanwhile.
        """
        known, live = self.record.courses, self._live
        begun = [s for s in live.workers.slots.values() if s.running or s.since is not None]
        awaited = over and any(slot.trial.trial_id not in known for slot in begun)
        runs = said.compared is not None and said.compared.gain_of_running > 0
        if not (others and (runs or awaited)):
            return False
        enough = awaited or len(known) >= min(FEWEST, len(live.trials))
        due = enough and self._floor_is_done(said)
        return offer.gain <= 0 or (due and offer.gain < self._least_gain)

    def _last_one(self, why: str = NO_GAIN, halving: Said[Trial] | None = None) -> Choice | None:
        """One of those that wait, or were not started, is given up; None: all are."""
        waiting = (trial_id for rung in self.record.paused for _, trial_id in rung)
        trial_id = next(waiting, None)
        if trial_id is not None and halving is not None:
            worse = self.rule.halve(self.record, trial_id, halving.error)
            return Choice("give up", trial_id, replace(worse, action=Action.STOP))
        if trial_id is None:
            held = self._live.held.trials
            trial_id = held[0].trial_id if held else None
        if trial_id is None:
            return None
        return self.rule.give_up(trial_id, why, least=self._least_gain)

    def _stop_if_diverged(self, trial: Trial) -> str:
        """Without a checkpoint, though trials save some: it is compared at its next one.

        But a trial that has diverged may never come to one, if only improvements are saved, and
        would not be resumed.
        """
        if self._is_early(trial):
            return CONTINUE
        said = self._compare(arriving=trial)
        if said.compared is None or not self._beliefs.diverged(said, trial.trial_id):
            return CONTINUE
        text = "it has diverged: {loss:loss}; training starts from {start:loss}"
        loss, start = self.record.courses[trial.trial_id].loss, said.compared.scale.cap
        return self._drop_for_good(trial.trial_id, self.rule.stop(text, loss=loss, start=start))

    def _stop_or_continue(self, trial: Trial) -> str:
        """Without checkpoints: a trial that is stopped cannot come back."""
        trial_id = trial.trial_id
        course = self.record.courses[trial_id]
        if self._beliefs.judged.get(trial_id) == course.reached:
            return CONTINUE
        self._beliefs.judged[trial_id] = course.reached
        if self._is_early(trial):
            return CONTINUE
        said = self._compare(arriving=trial)
        if said.compared is None:
            return CONTINUE
        if said.misleads:
            halves = self.rule.halve(self.record, trial_id, said.error)
            return (
                CONTINUE
                if halves.action is Action.CONTINUE
                else self._drop_for_good(trial_id, halves)
            )
        mine = said.compared.of(said.trials.index(trial))
        other = said.compared.best_new(said.new)
        if mine is None or (not self.record.leader and mine.best >= course.best):
            return CONTINUE
        outdone = other is not None and 2 * mine.worth < other.worth
        over = bool(self.record.leader) and mine.gain < LEAST_GAIN
        if not over and not (outdone and mine.chance < LEAST_CHANCE):
            return CONTINUE
        why = EXPECTED if over else EXPECTED + "; a new trial is worth twice as much"
        return self._drop_for_good(trial_id, self.rule.stop(why, **numbers_of(mine)))

    def _is_early(self, trial: Trial) -> bool:
        """Whether too little is known to stop a trial that cannot come back."""
        courses = self.record.courses
        early = courses[trial.trial_id].time < LEAST_SHARE * self.rule.max_t
        return early or len(courses) < FEWEST_TO_STOP

    def _drop_for_good(self, trial_id: str, decision: Decision) -> str:
        self.decisions[trial_id] = replace(decision, action=Action.STOP)
        told = self.explain(trial_id)
        self._memory.known(trial_id).stopped = told
        self._sweep.note(trial_id, GIVEN_UP, why=told)
        return STOP

    def _resume(self, trial_id: str, decision: Decision) -> None:
        self._beliefs.turn += 1
        why = "goes on at once: " + decision.say(self.sign)
        self._sweep.note(trial_id, RESUMED, why=why, **self.new_fit())

    def new_fit(self) -> dict[str, Any]:
        """The model's weights, if they were fitted since they were last journalled."""
        fit = self._beliefs.order.model.dump()
        if not fit["fitted"] or fit == self._memory.fit:
            return {}
        self._memory.fit = fit
        return {"fit": fit}
