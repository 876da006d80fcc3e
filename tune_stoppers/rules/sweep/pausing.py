"""What rules that pause trials at rungs share: the record, and whom to give up to make room."""

import math
from abc import abstractmethod
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from tune_stoppers.core import Decision, Report, SweepRule
from tune_stoppers.rules.sweep.rung import Rung, Times, moved, rungs_of

NEAR = 0.8  # of the horizon: a trial that ends by itself from there on has run to its end

Move = Literal["resume", "start", "give up"]


class Choice(NamedTuple):
    """What to do with a worker: resume a paused trial, start a new one, or give a paused one up."""

    move: Move
    trial_id: str  # "" for a new trial
    decision: Decision  # why


@dataclass(slots=True)
class PausingTrial:
    """What is remembered of a trial."""

    time: float = -math.inf  # of the newest report
    loss: float = math.inf  # at that time
    best: float = math.inf  # lowest loss so far
    reached: int = 0  # rungs that it has come to
    passed: int = 0  # rungs that it may go beyond; fewer than `reached`: it is due for a pause
    paused: bool = False
    decision: Decision | None = None  # at `time`


@dataclass(slots=True)
class PausingRecord:
    """The mutable state of a sweep: an update costs O(log n) in the number of trials."""

    rungs: list[Rung]
    paused: list[list[tuple[float, str]]]  # per rung: loss there and trial, best first
    courses: dict[str, PausingTrial] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)  # lowest losses, of trials that have run
    ends: dict[str, float] = field(default_factory=dict)  # when those ended
    leader: str = ""  # the best of those that ended near the horizon
    given_up: set[str] = field(default_factory=set)
    resumes: int = 0  # whose cost was measured
    cost: float = 0.0  # of all of these together, in units of the time
    starts: int = 0  # whose cost was measured
    start_cost: float = 0.0  # of all of these together
    times: Times = ()  # of the rungs: those of the rule, as time has come so far


@dataclass(frozen=True, kw_only=True)
class PausingRule(SweepRule[PausingRecord]):
    """What the rules that pause trials at rungs share; `at_rung` says who is paused.

    Rungs are those of `BoundASHA`, rounded up or not as it says, and so is what is recorded: a rung
    is reached at the first report at or after it, and the loss recorded there first; of several
    passed at once the last gets the report's loss, the earlier ones that of the report before. A
    trial waits at the last rung it has reached.

    A loss that is not finite stops the trial at once and counts as worst at its next rung. A
    report at a time already judged gets the same decision and changes nothing; one at an earlier
    time means that the trial went back: rungs reached again replace its own entries, promotions
    stay.

    Units: `max_t`, `grace_period` in those of the time.
    """

    max_t: float
    grace_period: float | None = None
    reduction_factor: float = 3

    def __post_init__(self) -> None:
        whole, fine = rungs_of(self.max_t, self.grace_period, self.reduction_factor)
        object.__setattr__(self, "rungs", whole)
        object.__setattr__(self, "fine_rungs", fine)

    rungs: Times = field(init=False, repr=False, compare=False)
    fine_rungs: Times = field(init=False, repr=False, compare=False)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Also of an earlier version, which gave every rule its first rung."""
        self.__dict__.update({"fine_rungs": state["rungs"]} | state)

    @abstractmethod
    def at_rung(
        self, record: PausingRecord, trial_id: str, course: PausingTrial, checkpoint: bool
    ) -> Decision:
        """On a trial that has come to a rung, now or earlier, and was not let go on from it yet.

        Where it may go on, `course.passed` becomes `course.reached`.
        """

    def least_at(self, index: int) -> float:
        """How many losses a rung must hold before its ranks mean something."""
        return self.reduction_factor

    def init(self) -> PausingRecord:
        """The record before the first report."""
        return PausingRecord(
            [Rung(None) for _ in self.rungs], [[] for _ in self.rungs], times=self.rungs
        )

    def update(
        self,
        record: PausingRecord,
        report: Report,
        *,
        checkpoint: str | None = None,
        since_restore: int | None = None,
    ) -> Decision:
        """Take in a report and decide; `record` is changed. PAUSE is asked for, not assumed.

        The trial counts as paused from the note "paused" to the note "resumed".
        """
        trial_id, time = report.trial_id, report.step
        course = record.courses.setdefault(trial_id, PausingTrial())
        if time == course.time and course.decision is not None:
            return course.decision
        self.take_out(record, trial_id)  # a paused trial that reports has been resumed
        record.given_up.discard(trial_id)
        if time % 1 and record.times != self.fine_rungs:
            self._refine(record)
        if time < course.time:
            course.reached = min(course.reached, bisect_left(record.times, time))
            course.time, course.loss = -math.inf, math.inf
        course.decision = self._judge(record, course, report, bool(checkpoint))
        return course.decision

    def ended(self, record: PausingRecord, report: Report) -> None:
        """The trial has ended by itself or by somebody else's decision, with this last report."""
        if report.trial_id in record.given_up:
            return
        course = record.courses.get(report.trial_id)
        if course is None or report.step > course.time:
            self.update(record, report)
        self.take_out(record, report.trial_id)
        course = record.courses[report.trial_id]  # it stays: the trial may yet be restored
        if report.loss is not None and math.isfinite(report.loss):
            self._close(record, report.trial_id, course.best, report.step)

    def unjudged(self, record: PausingRecord, trial_id: str, step: float | None) -> None:
        """The trial has ended, at `step` if that is known, with the newest report judged."""
        self.take_out(record, trial_id)
        course = record.courses.get(trial_id)
        if course is None or trial_id in record.given_up or not math.isfinite(course.loss):
            return
        self._close(record, trial_id, course.best, course.time if step is None else step)

    def lost(self, record: PausingRecord, trial_id: str) -> None:
        """The trial's process died or it was dropped: what it recorded stays, it waits no more."""
        self.take_out(record, trial_id)

    def forget(self, record: PausingRecord, trial_ids: Iterable[str]) -> None:
        """Drop everything about these trials."""
        for trial_id in trial_ids:
            self.take_out(record, trial_id)
            record.courses.pop(trial_id, None)
            record.ended.pop(trial_id, None)
            record.ends.pop(trial_id, None)
            record.given_up.discard(trial_id)
            for rung in record.rungs:
                rung.drop(trial_id)
        self._find_leader(record)

    def note(
        self, record: PausingRecord, trial_id: str, event: str, numbers: Mapping[str, Any]
    ) -> None:
        """ "paused": it waits from now on. "resumed": it is promoted. "cost": what that took.

        "start cost": what its start took. Costs are in `numbers["cost"]`, in units of the time.
        """
        course = record.courses.get(trial_id) or PausingTrial()
        if event == "paused" and not course.paused and course.reached:
            course.paused = True
            index = course.reached - 1
            insort(record.paused[index], (record.rungs[index].of_trial[trial_id], trial_id))
        elif event == "resumed":
            self.take_out(record, trial_id)
            course.passed = max(course.passed, course.reached)
            course.decision = self.keep("it was resumed")
        elif event == "given up":
            self.take_out(record, trial_id)
            record.given_up.add(trial_id)
        elif event == "cost":
            record.resumes += 1
            record.cost += numbers["cost"]
        elif event == "start cost":
            record.starts += 1
            record.start_cost += numbers["cost"]

    def is_paused(self, record: PausingRecord, trial_id: str) -> bool:
        """Whether the trial waits at a rung."""
        course = record.courses.get(trial_id)
        return course is not None and course.paused

    def is_due(self, record: PausingRecord, trial_id: str) -> bool:
        """Whether the trial goes on only because it could not be paused."""
        course = record.courses.get(trial_id)
        return course is not None and course.reached > course.passed and not course.paused

    def is_whole(self, record: PausingRecord, trial_id: str) -> bool:
        """Whether the trial has run to its end: it ended by itself, near the horizon.

        One that ended earlier, however good it was by then, says nothing of what those that wait
        would come to.
        """
        return record.ends.get(trial_id, -math.inf) >= NEAR * self.max_t

    def is_behind(self, record: PausingRecord, index: int, loss: float) -> float | None:
        """What the leader had at this rung, if `loss` is no better there; else None."""
        theirs = record.rungs[index].of_trial.get(record.leader, math.inf)
        return theirs if loss >= theirs else None

    def resume_cost(self, record: PausingRecord) -> float:
        """What a resume costs in units of the time, by the mean of those measured; at first 0."""
        return record.cost / record.resumes if record.resumes else 0.0

    def start_cost(self, record: PausingRecord) -> float:
        """What a start costs, likewise."""
        return record.start_cost / record.starts if record.starts else 0.0

    def worst(self, record: PausingRecord) -> Choice | None:
        """Whom to give up where paused trials keep the searcher from suggesting new ones.

        The worst that waits at the lowest rung where that can hurt little: where the quota rules
        it out, or where a better one waits too.
        """
        for index, waiting in enumerate(record.paused):
            if not waiting:
                continue
            (loss, trial_id), rung = waiting[-1], record.rungs[index]
            count = len(rung.losses)
            judged = count >= self.least_at(index)
            if len(waiting) > 1 or (judged and rung.rank(loss) * self.reduction_factor > count):
                text = "{loss:loss} is the worst that waits at rung {rung:g}; others need its place"
                return self.give_up(trial_id, text, loss=loss, rung=record.times[index])
        return None

    def _judge(
        self,
        record: PausingRecord,
        course: PausingTrial,
        report: Report,
        checkpoint: bool,
    ) -> Decision:
        trial_id, time, loss, _ = report
        assert loss is not None
        before, first = course.loss, course.time == -math.inf
        course.time, course.loss = time, loss if math.isfinite(loss) else math.inf
        if not math.isfinite(loss):
            if course.reached < len(record.times):
                record.rungs[course.reached].record(trial_id, math.inf)
            return self.stop("the value is {value}, which is not finite", value=loss)
        course.best = min(course.best, loss)
        start = course.reached
        while course.reached < len(record.times) and record.times[course.reached] <= time:
            course.reached += 1
        for index in range(start, course.reached):
            there = loss if first or index == course.reached - 1 else before
            record.rungs[index].record(trial_id, there)
        if time >= self.max_t:
            return self.stop("the horizon {max_t:g} is reached", max_t=self.max_t)
        if course.reached > course.passed:
            return self.at_rung(record, trial_id, course, checkpoint)
        return self.keep("{loss:loss}; the next rung is not reached", loss=loss)

    def _refine(self, record: PausingRecord) -> None:
        """Time does not come in whole steps: the rungs are those that are not rounded."""
        trials = [(name, course.time, course.loss) for name, course in record.courses.items()]
        before, now = record.times, self.fine_rungs
        record.rungs, record.times = moved(record.rungs, before, now, None, trials), now
        record.paused = [[] for _ in now]
        for trial_id, course in record.courses.items():
            waits = course.reached > course.passed
            passed = bisect_right(now, before[course.passed - 1]) if course.passed else 0
            course.reached = bisect_right(now, course.time)
            course.passed = passed if waits else max(passed, course.reached)
            if course.paused:
                course.paused = False
                self.note(record, trial_id, "paused", {})

    def _close(self, record: PausingRecord, trial_id: str, best: float, time: float) -> None:
        record.ended[trial_id] = best
        record.ends[trial_id] = max(time, record.courses[trial_id].time)
        if self.is_whole(record, trial_id):
            leads = not record.leader or best < record.ended[record.leader]
            record.leader = trial_id if leads else record.leader

    def _find_leader(self, record: PausingRecord) -> None:
        whole = (trial_id for trial_id in record.ended if self.is_whole(record, trial_id))
        record.leader = min(whole, key=record.ended.__getitem__, default="")

    def take_out(self, record: PausingRecord, trial_id: str) -> None:
        """The trial, if it waits, waits no more."""
        course = record.courses.get(trial_id)
        if course is None or not course.paused:
            return
        course.paused = False
        index = course.reached - 1
        waiting = record.paused[index]
        del waiting[bisect_left(waiting, (record.rungs[index].of_trial[trial_id], trial_id))]

    def give_up(self, trial_id: str, text: str, **numbers: float | str) -> Choice:
        """The trial is not continued."""
        return Choice("give up", trial_id, self.stop(text, **numbers))
