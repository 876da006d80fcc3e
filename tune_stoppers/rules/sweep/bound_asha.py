"""BoundASHA: successive halving's quota, or an optimistic bound that cannot reach the incumbent.

The quota is that of asynchronous successive halving (Li et al. 2020), in its stopping form. The
bound is ours: for a power law the gain per doubling of time shrinks, so the gain of the last
doubling, again at every doubling left, already overestimates what is to come; `optimism` times
that pays for noise and for learning-rate decay.

Over 350 lines, as quota, bound and audit judge by one record and are read together.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, Literal, NamedTuple

from tune_stoppers.core import (
    Action,
    Decision,
    Report,
    SweepRule,
    require_choice,
    require_number,
)
from tune_stoppers.rules.noise import roughness
from tune_stoppers.rules.schedule import LearningRate, check_schedule
from tune_stoppers.rules.sweep.audit import Audit
from tune_stoppers.rules.sweep.rung import Rung, Times, moved, rungs_of

HISTORY_RATIO = 2 ** (1 / 8)  # reports nearer in time than this are thinned: ≤ 10 a doubling
RECENT = 6  # newest values that the noise is measured on
SAME = 1e-9  # losses that differ by a smaller share are equal
LEAST = 4  # reports of a trial before the bound acts: two bends, the fewest that have a middle
AGES = 4  # a doubling of time is cut into so many, in each of which drops are compared
UNKNOWN_RATE = LearningRate()
_DROP = (
    "{loss:loss}; even {optimism:g} times the last doubling's drop of {drop:.3g} for the "
    "{doublings:.1f} doublings left"
)
_GIVES = " gives {bound:loss}, incumbent {best:loss} (trial {holder} at {when:g})"
BOUND = _DROP + _GIVES  # what is said at nearly every report: one text for all
BOUND_WITH_NOISE = _DROP + ", with {allowed:.3g} allowed for noise," + _GIVES


class Incumbent(NamedTuple):
    """The best value of a trial, or of the sweep."""

    loss: float = math.inf
    trial_id: str = ""
    time: float = 0.0


NOBODY = Incumbent()


@dataclass(slots=True)
class BoundASHATrial:
    """What is remembered of a trial; once it has ended, only where it was."""

    times: list[float] = field(default_factory=list)  # of the newest doubling, thinned
    losses: list[float] = field(default_factory=list)  # at those times
    recent: list[float] = field(default_factory=list)  # the newest losses
    time: float = -math.inf  # of the newest report
    loss: float = math.inf  # at that time
    rung: int = 0  # index of the next rung to reach
    rate: LearningRate = UNKNOWN_RATE
    decision: Decision | None = None  # at that time
    step: float = math.inf  # by which its loss has moved from a report to the next, at the least


@dataclass(slots=True)
class BoundASHARecord:
    """The mutable state of a sweep: an update costs O(log n) in the number of trials."""

    rungs: list[Rung]
    audit: Audit
    courses: dict[str, BoundASHATrial] = field(default_factory=dict)
    drops: dict[int, Rung] = field(default_factory=dict)  # over a doubling, by age
    bests: dict[str, Incumbent] = field(default_factory=dict)  # of every trial that has reported
    incumbent: Incumbent = NOBODY
    times: Times = ()  # of the rungs: those of the rule, as time has come so far
    noises: Rung = field(default_factory=lambda: Rung(None))  # roughness of trials' beginnings
    step: float = math.inf  # the least of all trials


@dataclass(frozen=True, kw_only=True)
class BoundASHA(SweepRule[BoundASHARecord]):
    """Stops a trial that fails its rung's quota, or whose optimistic bound misses the incumbent.

    Quota: rungs are `grace_period`·`reduction_factor`^k < `max_t`, by repeated multiplication. The
    default of `grace_period` is 4 % of `max_t`. It is rounded up while all trials report at whole
    times, whatever the type of `max_t`. From the first other time on it is not rounded, and the
    losses recorded before are brought to the new rungs.
    A rung is reached at the first report at or after it, and the trial's loss is recorded there
    first. Once a rung holds n >= `reduction_factor` losses, a trial survives it iff
    (rank - 1)·`reduction_factor` <= n - 1, its own loss included, ties in its favour. Of several
    rungs passed at once, the last gets the report's loss, the earlier ones the loss the trial had
    when it passed them (that of its report before; of this one if it is the first), and they are
    judged in order.

    Bound: from `bound_after`·`max_t` on, with at least `min_trials` trials started, and once the
    trial has made four reports and been seen for at least a doubling of its time, it stops if

        b - optimism · drop · log2(max_t / t) - max(noise · m, s)  >  incumbent,

    with b the better of the last two losses, drop = max(loss at t/2 - b, 0), m the median absolute
    second difference of the last six losses, and s the step of the metric: the least by which any
    trial's loss has moved from a report to the next (accuracy on 50 items moves by 0.02). While
    the trial has fewer than six losses, m is at least the median of what other trials had at their
    beginning. While no trial's loss has moved, s is the least gap between the bests of trials. The
    incumbent's trial is exempt from the bound.

    With `lr_metric`, the bound does not act on a trial whose learning rate still rises, nor while
    it is within 5 % of its maximum and `schedule_end` lies ahead (`rules.schedule`).

    A loss that is not finite stops the trial at once and counts as worst at its next rung. A
    report at a time already judged gets the same decision and changes nothing; one at an earlier
    time means that the trial went back: rungs reached again replace its own entries.

    Units: `max_t`, `grace_period` in those of the time; losses in their own; `bound_after` a share
    of `max_t`; `optimism` and `noise` are factors. `window` keeps only the newest N entries of
    each rung, for searchers whose suggestions improve.
    """

    max_t: float
    grace_period: float | None = None
    reduction_factor: float = 3
    optimism: float = 4.0
    noise: float = 0.6
    bound_after: float = 0.2
    min_trials: int = 4
    window: int | None = None
    lr_metric: str | None = None
    schedule_end: float | None = None
    drop: Literal["own", "typical"] = "own"
    audit: int | None = None

    version: ClassVar[int] = 3  # 2 had no least evidence for the bound, 1 no audit or typical drops

    def __post_init__(self) -> None:
        whole, fine = rungs_of(self.max_t, self.grace_period, self.reduction_factor)
        object.__setattr__(self, "rungs", whole)
        object.__setattr__(self, "fine_rungs", fine)
        require_number("optimism", self.optimism, at_least=0)
        require_number("noise", self.noise, at_least=0)
        require_number("bound_after", self.bound_after, at_least=0)
        require_number("min_trials", self.min_trials, at_least=1, integer=True)
        if self.window is not None:
            require_number(
                "window", self.window, at_least=math.ceil(self.reduction_factor), integer=True
            )
        check_schedule(self.lr_metric, self.schedule_end)
        require_choice("drop", self.drop, ("own", "typical"))
        if self.audit is not None:
            require_number("audit", self.audit, at_least=1, integer=True)

    rungs: Times = field(init=False, repr=False, compare=False)
    fine_rungs: Times = field(init=False, repr=False, compare=False)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Also of an earlier version, which gave every rule its first rung."""
        self.__dict__.update({"fine_rungs": state["rungs"]} | state)

    @property
    def reads(self) -> tuple[str, ...]:
        """The learning rate, where the rule is told of it."""
        return () if self.lr_metric is None else (self.lr_metric,)

    def init(self) -> BoundASHARecord:
        """The record before the first report."""
        rungs = [Rung(self.window) for _ in self.rungs]
        return BoundASHARecord(
            rungs, Audit.of(len(rungs)), times=self.rungs, noises=Rung(self.window)
        )

    def update(
        self,
        record: BoundASHARecord,
        report: Report,
        *,
        checkpoint: str | None = None,
        since_restore: int | None = None,
    ) -> Decision:
        """Take in a report and decide; `record` is changed. Checkpoints play no part."""
        trial_id, time, loss, metrics = report
        assert loss is not None
        course = record.courses.get(trial_id)
        if course is None:
            course = record.courses[trial_id] = BoundASHATrial()
            record.bests.setdefault(trial_id, Incumbent(math.inf, trial_id, time))
        if time == course.time and course.decision is not None:
            return course.decision
        if time % 1 and record.times != self.fine_rungs:
            self._refine(record)
        if time < course.time:
            self._go_back(record, course, time)
        if self.lr_metric is not None and self.lr_metric in metrics:
            course.rate = course.rate.then(metrics[self.lr_metric])
        course.decision = self._judge(record, trial_id, course, time, loss)
        return course.decision

    def ended(self, record: BoundASHARecord, report: Report) -> None:
        """The trial has ended by itself or by somebody else's decision, with this last report."""
        course = record.courses.get(report.trial_id)
        if course is None or report.step > course.time:
            self.update(record, report)
            course = record.courses[report.trial_id]
        course.times, course.losses, course.recent = [], [], []  # it may yet be restored
        record.audit.forget([report.trial_id])

    def lost(self, record: BoundASHARecord, trial_id: str) -> None:
        """The trial's process died: no evidence against it. It may come back, so nothing goes."""

    def forget(self, record: BoundASHARecord, trial_ids: Iterable[str]) -> None:
        """Drop these trials; the incumbent is the best of the others."""
        trial_ids = list(trial_ids)
        record.audit.forget(trial_ids)
        for trial_id in trial_ids:
            record.courses.pop(trial_id, None)
            record.bests.pop(trial_id, None)
            for rung in [*record.rungs, *record.drops.values(), record.noises]:
                rung.drop(trial_id)
        record.step = min((course.step for course in record.courses.values()), default=math.inf)
        best = min(record.bests.values(), default=NOBODY, key=lambda best: best.loss)
        record.incumbent = best if best.loss < math.inf else NOBODY

    def _judge(
        self,
        record: BoundASHARecord,
        trial_id: str,
        course: BoundASHATrial,
        time: float,
        loss: float,
    ) -> Decision:
        before, first = course.loss, course.time == -math.inf
        course.time = time
        if not math.isfinite(loss):
            if course.rung < len(record.rungs):
                record.rungs[course.rung].record(trial_id, math.inf)
            record.audit.comes_to_rung(trial_id, course.rung, passes=False)
            return self.stop("the value is {value}, which is not finite", value=loss)
        begins = len(course.recent) < RECENT
        self._remember(course, time, loss)
        if course.step < record.step:
            record.step = course.step
        if begins and len(course.recent) >= LEAST:
            record.noises.record(trial_id, roughness(course.recent))
        if loss < record.bests[trial_id].loss:
            best = record.bests[trial_id] = Incumbent(loss, trial_id, time)
            if loss < record.incumbent.loss:
                record.incumbent = best
        reached = course.rung
        while reached < len(record.times) and record.times[reached] <= time:
            reached += 1
        for index in range(course.rung, reached):
            there = loss if first or index == reached - 1 else before
            course.rung = index + 1
            failed = self._fails_quota(record, trial_id, index, there)
            record.audit.comes_to_rung(trial_id, index, passes=failed is None)
            if failed is not None and not self._spares(record, trial_id, index):
                return failed
        if time >= self.max_t:
            return self.stop("the horizon {max_t:g} is reached", max_t=self.max_t)
        if trial_id in record.audit.spared:
            return self._spared(record, trial_id, loss)
        return self._bound(record, trial_id, course, time)

    def _remember(self, course: BoundASHATrial, time: float, loss: float) -> None:
        moved = abs(loss - course.loss)  # infinite at the first report
        if SAME * abs(loss) < moved < course.step:
            course.step = moved
        course.loss = loss
        course.recent.append(loss)
        del course.recent[:-RECENT]
        times, losses = course.times, course.losses
        if len(times) > 1 and time < times[-2] * HISTORY_RATIO:
            times[-1], losses[-1] = time, loss
        else:
            times.append(time)
            losses.append(loss)
        while len(times) > 1 and times[1] <= time / 2:
            del times[0], losses[0]

    def _refine(self, record: BoundASHARecord) -> None:
        """Time does not come in whole steps: the rungs are those that are not rounded."""
        trials = [(name, course.time, course.loss) for name, course in record.courses.items()]
        now = self.fine_rungs
        record.rungs, record.times = (
            moved(record.rungs, record.times, now, self.window, trials),
            now,
        )
        record.audit = Audit.of(len(now))  # what it has learnt is of other rungs
        for course in record.courses.values():
            course.rung = bisect_right(now, course.time)

    def _go_back(self, record: BoundASHARecord, course: BoundASHATrial, time: float) -> None:
        course.rate = UNKNOWN_RATE
        kept = bisect_left(course.times, time)
        del course.times[kept:], course.losses[kept:]
        course.recent = course.losses[-RECENT:]
        course.rung = bisect_left(record.times, time)
        course.time = course.times[-1] if course.times else -math.inf
        course.loss = course.losses[-1] if course.losses else math.inf

    def _fails_quota(
        self, record: BoundASHARecord, trial_id: str, index: int, loss: float
    ) -> Decision | None:
        rung = record.rungs[index]
        rung.record(trial_id, loss)
        count = len(rung.losses)
        if count < self.reduction_factor:
            return None
        rank = rung.rank(loss)
        if (rank - 1) * self.reduction_factor <= count - 1:
            return None
        return self.stop(
            "{loss:loss} is rank {rank} of {count} at rung {rung:g}: not in the best 1/{factor:g}",
            loss=loss,
            rank=rank,
            count=count,
            rung=record.times[index],
            factor=self.reduction_factor,
        )

    def _spares(self, record: BoundASHARecord, trial_id: str, index: int) -> bool:
        """Whether a trial that fails this rung's quota continues, for the audit's sake."""
        if self.audit is None or index == len(record.times) - 1:
            return False
        return record.audit.fails(trial_id, index, self.audit)

    def _spared(self, record: BoundASHARecord, trial_id: str, loss: float) -> Decision:
        index = record.audit.spared[trial_id]
        belief = record.audit.belief(index)
        text = "{loss:loss}: fails the quota at rung {rung:g}, let go on to the next " + (
            "as that quota is suspended: wrong for {wrong} of {tried} such trials"
            if belief.suspended
            else "to see if that quota errs: so far wrong for {wrong} of {tried} such trials"
        )
        wrong, tried = belief
        return self.keep(text, loss=loss, rung=record.times[index], wrong=wrong, tried=tried)

    def _bound(
        self, record: BoundASHARecord, trial_id: str, course: BoundASHATrial, time: float
    ) -> Decision:
        incumbent = record.incumbent
        if time <= 0 or time < self.bound_after * self.max_t:
            return self.keep("{loss:loss}: too early for the bound", loss=course.loss)
        if course.times[0] > time / 2:
            return self.keep("{loss:loss}: too little seen for the bound", loss=course.loss)
        newest = course.recent[-1]
        best = min(newest, course.recent[-2]) if len(course.recent) > 1 else newest
        drop = max(course.losses[0] - best, 0.0)
        if self.drop == "typical":
            drop = max(drop, self._typical_drop(record, trial_id, time, drop))
        if len(course.recent) < LEAST:
            text = "{loss:loss}: {seen} reports are too few for the bound, {least} needed"
            return self.keep(text, loss=course.loss, seen=len(course.recent), least=LEAST)
        if len(record.bests) < self.min_trials:
            return self.keep("{loss:loss}: too few trials for the bound", loss=course.loss)
        if held := self.lr_metric and course.rate.holds(time, self.schedule_end):
            return self.keep("{loss:loss}; no bound, {held}", loss=course.loss, held=held)
        if trial_id == incumbent.trial_id:
            return self.keep("the incumbent, {best:loss}", best=incumbent.loss)
        doublings = math.log2(self.max_t / time)
        bound = best - self.optimism * drop * doublings
        numbers: dict[str, Any] = {"loss": course.loss, "optimism": self.optimism}
        numbers |= {"drop": drop, "doublings": doublings}
        text = BOUND
        if bound > incumbent.loss:  # the allowance only helps the trial: measured where it matters
            text, allowed = BOUND_WITH_NOISE, self._allowance(record, course)
            bound -= allowed
            numbers["allowed"] = allowed
        target, holder, when = incumbent
        numbers |= {"bound": bound, "best": target, "holder": holder, "when": when}
        action = Action.STOP if bound > target else Action.CONTINUE
        return Decision(action, text, self.name, numbers)

    def _allowance(self, record: BoundASHARecord, course: BoundASHATrial) -> float:
        """By how much the bound may be wrong, in loss units."""
        rough = roughness(course.recent)
        if len(course.recent) < RECENT:
            rough = max(rough, record.noises.median)  # this trial's own is among them
        step = record.step
        if step == math.inf:  # no loss has moved yet
            bests = sorted(best.loss for best in record.bests.values() if best.loss < math.inf)
            gaps = [after - before for before, after in pairwise(bests)]
            step = min((gap for gap in gaps if gap > SAME * abs(bests[0])), default=0.0)
        return max(self.noise * rough, step * (1 + SAME))

    def _typical_drop(
        self, record: BoundASHARecord, trial_id: str, time: float, drop: float
    ) -> float:
        """The median drop at this age, this trial's included; 0 while too few are known."""
        age = math.floor(AGES * math.log2(time / self.max_t))
        drops = record.drops.get(age)
        if drops is None:
            drops = record.drops[age] = Rung(self.window)
        if trial_id not in drops.of_trial:  # what counts is when it came to this age
            drops.record(trial_id, drop)
        return drops.median if len(drops.losses) >= self.min_trials else 0.0
