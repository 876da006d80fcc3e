"""Promotion: successive halving that pauses trials at rungs and promotes the best of them.

The promoting form of asynchronous successive halving (Li et al. 2020), with three departures: the
first trials of the sweep wait until the quota means something; a trial that is within the quota
when it arrives goes on at once, without a pause; and what a resume costs is weighed against what
lies between the rung and the next.
"""

import math
from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from tune_stoppers.core import Action, Decision, Report, require_number
from tune_stoppers.rules.bound_asha import BoundASHA
from tune_stoppers.rules.dumped import dump_decision, load_decision
from tune_stoppers.rules.rung import Rung
from tune_stoppers.rules.sweep_rule import SweepRule

NAME = "Promotion"
Move = Literal["resume", "start", "give up"]


class Choice(NamedTuple):
    """What to do with a worker: resume a paused trial, start a new one, or give a paused one up."""

    move: Move
    trial_id: str  # "" for a new trial
    decision: Decision  # why


@dataclass(slots=True)
class Course:
    """What is remembered of a trial."""

    time: float = -math.inf  # of the newest report
    loss: float = math.inf  # at that time
    best: float = math.inf  # lowest loss so far
    reached: int = 0  # rungs that it has come to
    passed: int = 0  # rungs that it may go beyond; fewer than `reached`: it is due for a pause
    paused: bool = False
    decision: Decision | None = None  # at `time`


@dataclass(slots=True)
class Record:
    """The mutable state of a sweep: an update costs O(log n) in the number of trials."""

    rungs: list[Rung]
    paused: list[list[tuple[float, str]]]  # per rung: loss there and trial, best first
    courses: dict[str, Course] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)  # lowest losses, of trials that have run
    target: float = math.inf  # the lowest of those
    given_up: set[str] = field(default_factory=set)
    resumes: int = 0  # whose cost was measured
    cost: float = 0.0  # of all of these together, in units of the time


@dataclass(frozen=True, kw_only=True)
class Promotion(SweepRule[Record]):
    """Pauses a trial at a rung unless it is among the best there; promotes the best that wait.

    Rungs are those of `BoundASHA`, and so is what is recorded: a rung is reached at the first
    report at or after it, and the loss recorded there first; of several passed at once the last
    gets the report's loss, the earlier ones that of the report before. A trial waits at the last
    rung it has reached.

    Quota: of n losses recorded at a rung, those of rank <= n / `reduction_factor`, ties in the
    trial's favour, may go on; at the first rung once n >= `pen`, the cold start. A trial that may
    goes on at once. One that may not is paused, at its first report with a checkpoint: without one
    it would start from zero.

    `choose` says what a free worker does: from the top rung down, resume the best paused trial
    that may go on; else start a new one. When no new one will come, the pen is void. When nothing
    runs or is pending either, the best paused trial resumes if it is better than every trial that
    has run to its end; else all that wait are given up.

    `worst` says whom to give up where a searcher suggests nothing before a trial has ended.

    Cost: the mean measured cost of a resume, in units of the time. Where it is more than
    `resume_share` of the way to the next rung, a paused trial resumes only if there is nothing
    else to do, and an arriving one is spared the pause where it can be: there is no pen, and it
    goes on iff (rank - 1)·`reduction_factor` <= n - 1, as in the stopping form.

    A loss that is not finite stops the trial at once and counts as worst at its next rung. A
    report at a time already judged gets the same decision and changes nothing; one at an earlier
    time means that the trial went back: rungs reached again replace its own entries, promotions
    stay.

    Units: `max_t`, `grace_period` in those of the time; `pen` in trials.
    """

    max_t: float
    grace_period: float | None = None
    reduction_factor: float = 3
    pen: int = 9
    resume_share: float = 0.25

    def __post_init__(self) -> None:
        halving = BoundASHA(
            max_t=self.max_t,
            grace_period=self.grace_period,
            reduction_factor=self.reduction_factor,
        )
        object.__setattr__(self, "grace_period", halving.grace_period)
        object.__setattr__(self, "rungs", halving.rungs)
        require_number("pen", self.pen, at_least=1, integer=True)
        require_number("resume_share", self.resume_share, above=0)

    rungs: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def init(self) -> Record:
        """The record before the first report."""
        return Record([Rung(None) for _ in self.rungs], [[] for _ in self.rungs])

    def update(
        self,
        record: Record,
        report: Report,
        *,
        checkpoint: str | None = None,
        since_restore: int | None = None,
    ) -> Decision:
        """Take in a report and decide; `record` is changed. PAUSE is asked for, not assumed.

        The trial counts as paused from the note "paused" to the note "resumed".
        """
        trial_id, time, loss, _ = report
        assert loss is not None
        course = record.courses.setdefault(trial_id, Course())
        if time == course.time and course.decision is not None:
            return course.decision
        self._take_out(record, trial_id)  # a paused trial that reports has been resumed
        record.given_up.discard(trial_id)
        if time < course.time:
            course.reached = bisect_left(self.rungs, time)
            course.time, course.loss = -math.inf, math.inf
        course.decision = self._judge(record, trial_id, course, time, loss, bool(checkpoint))
        return course.decision

    def ended(self, record: Record, report: Report) -> None:
        """The trial has ended by itself or by somebody else's decision, with this last report."""
        if report.trial_id in record.given_up:
            return
        course = record.courses.get(report.trial_id)
        if course is None or report.step > course.time:
            self.update(record, report)
        self._take_out(record, report.trial_id)
        course = record.courses[report.trial_id]  # it stays: the trial may yet be restored
        if report.loss is not None and math.isfinite(report.loss):
            record.ended[report.trial_id] = course.best
            record.target = min(record.target, course.best)

    def lost(self, record: Record, trial_id: str) -> None:
        """The trial's process died or it was dropped: what it recorded stays, it waits no more."""
        self._take_out(record, trial_id)

    def forget(self, record: Record, trial_ids: Iterable[str]) -> None:
        """Drop everything about these trials."""
        for trial_id in trial_ids:
            self._take_out(record, trial_id)
            record.courses.pop(trial_id, None)
            record.ended.pop(trial_id, None)
            record.given_up.discard(trial_id)
            for rung in record.rungs:
                rung.drop(trial_id)
        record.target = min(record.ended.values(), default=math.inf)

    def note(self, record: Record, trial_id: str, event: str, numbers: Mapping[str, Any]) -> None:
        """ "paused": it waits from now on. "resumed": it is promoted. "cost": what that took.

        The cost is in `numbers["cost"]`, in units of the time.
        """
        course = record.courses.get(trial_id) or Course()
        if event == "paused" and not course.paused and course.reached:
            course.paused = True
            index = course.reached - 1
            insort(record.paused[index], (record.rungs[index].of_trial[trial_id], trial_id))
        elif event == "resumed":
            self._take_out(record, trial_id)
            course.passed = max(course.passed, course.reached)
            course.decision = self._keep("it was resumed")
        elif event == "given up":
            self._take_out(record, trial_id)
            record.given_up.add(trial_id)
        elif event == "cost":
            record.resumes += 1
            record.cost += numbers["cost"]

    def is_paused(self, record: Record, trial_id: str) -> bool:
        """Whether the trial waits at a rung."""
        course = record.courses.get(trial_id)
        return course is not None and course.paused

    def is_due(self, record: Record, trial_id: str) -> bool:
        """Whether the trial goes on only because it could not be paused."""
        course = record.courses.get(trial_id)
        return course is not None and course.reached > course.passed and not course.paused

    def resume_cost(self, record: Record) -> float:
        """What a resume costs in units of the time, by the mean of those measured; at first 0."""
        return record.cost / record.resumes if record.resumes else 0.0

    def choose(self, record: Record, *, fresh: bool, over: bool, idle: bool) -> Choice | None:
        """What a free worker should do; None: wait. Changes nothing; O(number of rungs).

        Args:
            fresh: a new trial can be started.
            over: no more new trials will come than are there.
            idle: no trial runs or is about to.
        """
        last = over and not fresh
        dear: Choice | None = None
        for index in reversed(range(len(self.rungs))):
            choice = self._promotion(record, index, last)
            if choice is not None and not self._is_dear(record, index):
                return choice
            dear = dear or choice
        if fresh:
            return Choice("start", "", self._keep("no paused trial is promoted: a new one starts"))
        if dear is not None or not idle:
            return dear
        return self._at_rest(record, over)

    def worst(self, record: Record) -> Choice | None:
        """Whom to give up where paused trials keep the searcher from suggesting new ones.

        The worst that waits at the lowest rung where that can hurt little: where the quota rules
        it out, or where a better one waits too.
        """
        for index, waiting in enumerate(record.paused):
            judged = len(record.rungs[index].losses) >= max(self._pen(index), self.reduction_factor)
            if len(waiting) > 1 or (waiting and judged):
                loss, trial_id = waiting[-1]
                text = "{loss:loss} is the worst that waits at rung {rung:g}; others need its place"
                return self._give_up(trial_id, text, loss=loss, rung=self.rungs[index])
        return None

    def dump(self, record: Record) -> dict[str, Any]:
        """`record` as JSON data."""
        return {
            "rungs": [list(rung.of_trial.items()) for rung in record.rungs],
            "courses": {trial: _dump_course(c) for trial, c in record.courses.items()},
            "ended": dict(record.ended),
            "given_up": sorted(record.given_up),
            "resumes": record.resumes,
            "cost": record.cost,
        }

    def load(self, data: dict[str, Any]) -> Record:
        """The record that `dump` wrote."""
        record = self.init()
        for rung, entries in zip(record.rungs, data["rungs"], strict=True):
            for trial_id, loss in entries:
                rung.record(trial_id, float(loss))
        for trial_id, dumped in data["courses"].items():
            course = record.courses[trial_id] = _load_course(dumped)
            if course.paused:
                course.paused = False
                self.note(record, trial_id, "paused", {})
        record.ended = {trial: float(loss) for trial, loss in data["ended"].items()}
        record.target = min(record.ended.values(), default=math.inf)
        record.given_up = set(data["given_up"])
        record.resumes, record.cost = data["resumes"], data["cost"]
        return record

    def _judge(
        self,
        record: Record,
        trial_id: str,
        course: Course,
        time: float,
        loss: float,
        checkpoint: bool,
    ) -> Decision:
        before, first = course.loss, course.time == -math.inf
        course.time, course.loss = time, loss if math.isfinite(loss) else math.inf
        if not math.isfinite(loss):
            if course.reached < len(self.rungs):
                record.rungs[course.reached].record(trial_id, math.inf)
            return self._say(Action.STOP, "the value is {value}, which is not finite", value=loss)
        course.best = min(course.best, loss)
        start = course.reached
        while course.reached < len(self.rungs) and self.rungs[course.reached] <= time:
            course.reached += 1
        for index in range(start, course.reached):
            there = loss if first or index == course.reached - 1 else before
            record.rungs[index].record(trial_id, there)
        if time >= self.max_t:
            return self._say(Action.STOP, "the horizon {max_t:g} is reached", max_t=self.max_t)
        if course.reached > course.passed:
            return self._at_rung(record, trial_id, course, checkpoint)
        return self._keep("{loss:loss}; the next rung is not reached", loss=loss)

    def _at_rung(self, record: Record, trial_id: str, course: Course, checkpoint: bool) -> Decision:
        """A trial that has come to a rung, now or earlier, and was not promoted from it yet."""
        index = course.reached - 1
        rung = record.rungs[index]
        loss = rung.of_trial[trial_id]
        rank, count = rung.rank(loss), len(rung.losses)
        numbers = {
            "loss": loss,
            "rank": rank,
            "count": count,
            "rung": self.rungs[index],
            "factor": self.reduction_factor,
            "pen": self._pen(index),
        }
        place = "{loss:loss} is rank {rank} of {count} at rung {rung:g}"
        if self._is_dear(record, index):
            may_go_on = (rank - 1) * self.reduction_factor <= count - 1
            why = "a resume is dear here; best 1/{factor:g}, rounded up, go on"
        else:
            full = count >= self._pen(index)
            may_go_on = full and rank * self.reduction_factor <= count
            why = "the best 1/{factor:g} go on" if full else "the first {pen} wait for each other"
        text = f"{place}: {why}"
        if may_go_on:
            course.passed = course.reached
            return self._keep(text, **numbers)
        if not checkpoint:
            return self._keep(f"{text}; no pause without a checkpoint", **numbers)
        return self._say(Action.PAUSE, text, **numbers)

    def _promotion(self, record: Record, index: int, last: bool) -> Choice | None:
        """The best paused trial at a rung, if the quota lets it go on."""
        waiting, rung = record.paused[index], record.rungs[index]
        count = len(rung.losses)
        if not waiting or (count < self._pen(index) and not last):
            return None
        loss, trial_id = waiting[0]
        rank = rung.rank(loss)
        if rank * self.reduction_factor > count:
            return None
        decision = self._keep(
            "{loss:loss} is rank {rank} of {count} at rung {rung:g}: in the best 1/{factor:g}",
            loss=loss,
            rank=rank,
            count=count,
            rung=self.rungs[index],
            factor=self.reduction_factor,
        )
        return Choice("resume", trial_id, decision)

    def _at_rest(self, record: Record, over: bool) -> Choice | None:
        """Nothing runs, is pending or is promoted."""
        firsts = ((-index, waiting[0]) for index, waiting in enumerate(record.paused) if waiting)
        best = min(((loss, place, trial_id) for place, (loss, trial_id) in firsts), default=None)
        if best is None:
            return None
        loss, place, trial_id = best
        if over and loss >= record.target:
            text = "nothing else is left to run, and no paused trial beats {target:loss}"
            return self._give_up(trial_id, text, target=record.target)
        text = "nothing runs: {loss:loss} at rung {rung:g} is the best of the paused"
        return Choice("resume", trial_id, self._keep(text, loss=loss, rung=self.rungs[-place]))

    def _pen(self, index: int) -> int:
        """How many trials wait for each other: above the first rung they were chosen already."""
        return 0 if index else self.pen

    def _is_dear(self, record: Record, index: int) -> bool:
        """Whether a resume costs too much of what lies between this rung and the next."""
        beyond = self.rungs[index + 1] if index + 1 < len(self.rungs) else self.max_t
        return self.resume_cost(record) > self.resume_share * (beyond - self.rungs[index])

    def _take_out(self, record: Record, trial_id: str) -> None:
        course = record.courses.get(trial_id)
        if course is None or not course.paused:
            return
        course.paused = False
        index = course.reached - 1
        waiting = record.paused[index]
        del waiting[bisect_left(waiting, (record.rungs[index].of_trial[trial_id], trial_id))]

    def _keep(self, text: str, **numbers: float | str) -> Decision:
        return Decision(Action.CONTINUE, text, NAME, numbers)

    def _say(self, action: Action, text: str, **numbers: float | str) -> Decision:
        return Decision(action, text, NAME, numbers)

    def _give_up(self, trial_id: str, text: str, **numbers: float | str) -> Choice:
        return Choice("give up", trial_id, Decision(Action.STOP, text, NAME, numbers))


def _dump_course(course: Course) -> list[Any]:
    return [
        course.time,
        course.loss,
        course.best,
        course.reached,
        course.passed,
        course.paused,
        dump_decision(course.decision),
    ]


def _load_course(data: list[Any]) -> Course:
    time, loss, best, reached, passed, paused, said = data
    decision = load_decision(said, NAME)
    return Course(float(time), float(loss), float(best), reached, passed, paused, decision)
