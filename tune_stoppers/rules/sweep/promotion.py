"""Promotion: successive halving that pauses trials at rungs and promotes the best of them.

The promoting form of asynchronous successive halving (Li et al. 2020), with three departures: the
first trials of the sweep wait until the quota means something; a trial that is within the quota
when it arrives continues without a pause; and the cost of a resume is weighed against the way to
the next rung.
"""

from dataclasses import dataclass
from typing import ClassVar

from tune_stoppers.core import Decision, require_number
from tune_stoppers.rules.sweep.pausing import Choice, PausingRecord, PausingRule, PausingTrial


@dataclass(frozen=True, kw_only=True)
class Promotion(PausingRule):
    """Pauses a trial at a rung unless it is among the best there; promotes the best that wait.

    Rungs, and what is recorded at them: as `PausingRule` says.

    Quota: of n losses recorded at a rung, those of rank <= n / `reduction_factor`, ties in the
    trial's favour, may continue; at the first rung only once n >= `pen`, the cold start. A trial
    that may, continues at once. Any other is paused at its first report with a checkpoint: without
    one it would start from zero.

    `choose` says what a free worker does: from the top rung down, resume the best paused trial
    that may continue; else start a new one. When no new one will come, `pen` no longer counts. When
    nothing runs or is pending either, those that wait are compared with the leader, the best of the
    trials that ended by themselves in the last fifth of the horizon: the best that waits resumes if
    it was better at its rung than the leader was there, or while there is no leader; those that
    were no better are given up. Where trials end long before `max_t`, nobody is given up so: give
    the `max_t` that they run to.

    `worst` says whom to give up where a searcher suggests nothing before a trial has ended.

    Cost: the mean measured cost of a resume, in units of the time. Where it is more than
    `resume_share` of the way to the next rung, a paused trial resumes only if there is nothing
    else to do, and an arriving one is not paused if that can be avoided: `pen` does not count, and
    it continues iff (rank - 1)·`reduction_factor` <= n - 1, as in the stopping form.

    Units: `pen` in trials: how many wait for each other at the first rung.
    """

    scheduler: ClassVar[str] = "PromotionASHAScheduler"

    pen: int = 9
    resume_share: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("pen", self.pen, at_least=1, integer=True)
        require_number("resume_share", self.resume_share, above=0)

    def choose(
        self, record: PausingRecord, *, fresh: bool, over: bool, idle: bool
    ) -> Choice | None:
        """What a free worker should do; None: wait. Changes nothing; O(number of rungs).

        Args:
            fresh: a new trial can be started.
            over: no more new trials will come than are there.
            idle: no trial runs or is about to.
        """
        last = over and not fresh
        dear: Choice | None = None
        for index in reversed(range(len(record.times))):
            choice = self._promotion(record, index, last)
            if choice is not None and not self._is_dear(record, index):
                return choice
            dear = dear or choice
        if fresh:
            return Choice("start", "", self.keep("no paused trial is promoted: a new one starts"))
        if dear is not None or not idle:
            return dear
        return self._at_rest(record, over)

    def goes_on_alone(self, record: PausingRecord, trial_id: str, *, over: bool) -> bool:
        """Whether a trial that is due for a pause would be resumed if nothing else was there."""
        self.note(record, trial_id, "paused", {})
        choice = self.choose(record, fresh=False, over=over, idle=True)
        self.take_out(record, trial_id)
        return choice is not None and choice[:2] == ("resume", trial_id)

    def at_rung(
        self, record: PausingRecord, trial_id: str, course: PausingTrial, checkpoint: bool
    ) -> Decision:
        """Paused, if too few have come yet or it is outside the quota."""
        index = course.reached - 1
        rung = record.rungs[index]
        loss = rung.of_trial[trial_id]
        rank, count = rung.rank(loss), len(rung.losses)
        numbers = {
            "loss": loss,
            "rank": rank,
            "count": count,
            "rung": record.times[index],
            "factor": self.reduction_factor,
            "pen": self._pen(index),
        }
        rank_text = "{loss:loss} is rank {rank} of {count} at rung {rung:g}"
        if self._is_dear(record, index):
            may_go_on = (rank - 1) * self.reduction_factor <= count - 1
            why = "a resume is dear here; best 1/{factor:g}, rounded up, go on"
        else:
            full = count >= self._pen(index)
            may_go_on = full and rank * self.reduction_factor <= count
            why = "the best 1/{factor:g} go on" if full else "the first {pen} wait for each other"
        text = f"{rank_text}: {why}"
        if may_go_on:
            course.passed = course.reached
            return self.keep(text, **numbers)
        if not checkpoint:
            return self.keep(f"{text}; no pause without a checkpoint", **numbers)
        return self.pause(text, **numbers)

    def least_at(self, index: int) -> float:
        """At the first rung at least `pen`."""
        return max(self._pen(index), self.reduction_factor)

    def _promotion(self, record: PausingRecord, index: int, last: bool) -> Choice | None:
        """The best paused trial at a rung, if the quota lets it continue."""
        waiting, rung = record.paused[index], record.rungs[index]
        count = len(rung.losses)
        if not waiting or (count < self._pen(index) and not last):
            return None
        loss, trial_id = waiting[0]
        rank = rung.rank(loss)
        if rank * self.reduction_factor > count:
            return None
        decision = self.keep(
            "{loss:loss} is rank {rank} of {count} at rung {rung:g}: in the best 1/{factor:g}",
            loss=loss,
            rank=rank,
            count=count,
            rung=record.times[index],
            factor=self.reduction_factor,
        )
        return Choice("resume", trial_id, decision)

    def _at_rest(self, record: PausingRecord, over: bool) -> Choice | None:
        """Nothing runs, is pending or is promoted."""
        firsts = ((-index, waiting[0]) for index, waiting in enumerate(record.paused) if waiting)
        best = min(((loss, above, trial_id) for above, (loss, trial_id) in firsts), default=None)
        if best is None:
            return None
        loss, above, trial_id = best  # the higher rung wins a tie
        rung, theirs = record.times[-above], self.is_behind(record, -above, loss)
        if over and theirs is not None:
            text = (
                "nothing else is left to run, and {loss:loss} at rung {rung:g} is no better than "
                "the {theirs:loss} there of {leader}, the best that ran to its end"
            )
            leader = record.leader
            return self.give_up(trial_id, text, loss=loss, rung=rung, theirs=theirs, leader=leader)
        text = "nothing runs: {loss:loss} at rung {rung:g} is the best of the paused"
        return Choice("resume", trial_id, self.keep(text, loss=loss, rung=rung))

    def _pen(self, index: int) -> int:
        """How many trials wait for each other: above the first rung they were chosen already."""
        return 0 if index else self.pen

    def _is_dear(self, record: PausingRecord, index: int) -> bool:
        """Whether a resume costs too much of what lies between this rung and the next."""
        beyond = record.times[index + 1] if index + 1 < len(record.times) else self.max_t
        return self.resume_cost(record) > self.resume_share * (beyond - record.times[index])
