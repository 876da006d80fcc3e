"""Rollback: a trial that is stuck or diverges goes back to its own best checkpoint, changed.

The real form of `Recovery`: there a trial that stopped improving is only given more time.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from tune_stoppers.codec import decode
from tune_stoppers.core import (
    Action,
    Decision,
    OnNonfinite,
    Report,
    State,
    SweepRule,
    require_choice,
    require_number,
)
from tune_stoppers.core.track import KEPT_STATES
from tune_stoppers.rules.trial.divergence import Divergence

BLOWN_UP = Divergence()
STRANDED = ", no checkpoint to go back to"
WENT_BACK, GONE = "rollback", "checkpoint gone"  # what a scheduler notes


class Watch(NamedTuple):
    """What is put back when a trial goes back to a checkpoint."""

    divergence: State | None  # of the rule `divergence`
    best: float = math.inf  # lowest finite loss; infinity: none yet
    best_step: float | None = None  # where that was
    loss: float = math.inf  # the newest; infinity stands for any that was not finite
    bad: int = 0  # evaluations in a row without improvement
    phase: int | None = None  # of those, since the recovery began; None: none is on
    rested: int | None = None  # evaluations since the last rollback; None: there was none


class Anchor(NamedTuple):
    """A trial's best checkpoint."""

    loss: float
    step: float
    name: str
    watch: Watch  # there


@dataclass(slots=True)
class RollbackTrial:
    """What is remembered of a trial."""

    watch: Watch
    step: float | None = None  # of the newest report, or of the checkpoint it went back to
    anchor: Anchor | None = None  # None: no checkpoint to go back to
    rollbacks: int = 0
    kept: list[tuple[float, Watch]] = field(default_factory=list)  # at the newest checkpoints


RollbackRecord = dict[str, RollbackTrial]


@dataclass(frozen=True, kw_only=True)
class Rollback(SweepRule[RollbackRecord]):
    """Asks for a rollback (PAUSE) of a trial in trouble, and stops one that does not recover.

    Trouble: `divergence` would stop the trial; or, outside a recovery, `patience` evaluations in
    a row without improvement (an evaluation improves iff its loss is below the best, strictly).
    The trial then goes back to its best checkpoint, and a recovery begins: it ends at the first
    improvement; the `recovery_patience`-th evaluation without one stops the trial. A divergence
    during the recovery asks for another rollback, if it comes after `cooldown` evaluations. After
    `max_rollbacks` the next trouble stops the trial.

    A trial that has no checkpoint of a finite loss to go back to is given the recovery alone, as
    by `rules.Recovery`: `recovery_patience` more evaluations.

    What is counted goes back with the trial to where it was at the checkpoint; the number of
    rollbacks never does. The best checkpoint is the one of the lowest loss, the first of equal
    ones, never one at which the trial diverges.

    A loss that is not finite is an evaluation without improvement, and a divergence
    (`on_nonfinite` "worst"); or it stops the trial ("stop"); or it is left out ("ignore").

    Units: `patience`, `recovery_patience` and `cooldown` in evaluations.
    """

    scheduler: ClassVar[str] = "RollbackScheduler"

    patience: int = 5
    recovery_patience: int = 3
    max_rollbacks: int = 3
    cooldown: int = 1
    divergence: Divergence | None = BLOWN_UP
    on_nonfinite: OnNonfinite = "worst"

    def __post_init__(self) -> None:
        require_number("patience", self.patience, at_least=1, integer=True)
        require_number("recovery_patience", self.recovery_patience, at_least=1, integer=True)
        require_number("max_rollbacks", self.max_rollbacks, at_least=0, integer=True)
        require_number("cooldown", self.cooldown, at_least=0, integer=True)
        require_choice("on_nonfinite", self.on_nonfinite, ("worst", "stop", "ignore"))
        if not isinstance(self.divergence, Divergence | None):
            raise TypeError(
                "divergence must be a rules.Divergence, or None for plateaus alone, got "
                f"{self.divergence!r}."
            )

    @property
    def reads(self) -> tuple[str, ...]:
        """What `divergence` reads."""
        return () if self.divergence is None else self.divergence.reads

    @property
    def record_type(self) -> Any:
        """A course for each trial."""
        return RollbackRecord

    def init(self) -> RollbackRecord:
        """No trial yet."""
        return {}

    def update(
        self,
        record: RollbackRecord,
        report: Report,
        *,
        checkpoint: str | None = None,
        since_restore: int | None = None,
    ) -> Decision:
        """Take in a report and decide; PAUSE is asked for, not assumed.

        The trial has gone back from the note "rollback" on: it is then where it was at its best
        checkpoint, and the steps after that are fresh.
        """
        trial_id, step, loss, _ = report
        assert loss is not None
        course = record.get(trial_id)
        if course is None:
            course = record[trial_id] = RollbackTrial(self._fresh())
        if step == course.step or (self.on_nonfinite == "ignore" and not math.isfinite(loss)):
            return self._decide(course)
        if course.step is not None and step < course.step:
            self._put_back(course, step)
        course.step, course.watch = step, self._observe(course.watch, report)
        if checkpoint:
            self._mark(course, checkpoint)
        if course.anchor is None and course.watch.phase is None and self._trouble(course.watch):
            course.watch = course.watch._replace(phase=0)
        if checkpoint:
            course.kept = [*course.kept[1 - KEPT_STATES :], (step, course.watch)]
        return self._decide(course)

    def ended(self, record: RollbackRecord, report: Report) -> None:
        """The trial has ended; only its best checkpoint and its rollbacks are of interest now."""
        if report.trial_id in record:
            record[report.trial_id].kept = []

    def lost(self, record: RollbackRecord, trial_id: str) -> None:
        """The trial may come back from a checkpoint: nothing goes."""

    def forget(self, record: RollbackRecord, trial_ids: Iterable[str]) -> None:
        """Drop these trials."""
        for trial_id in trial_ids:
            record.pop(trial_id, None)

    def note(
        self, record: RollbackRecord, trial_id: str, event: str, numbers: Mapping[str, Any]
    ) -> None:
        """ "rollback": the trial has gone back. "checkpoint gone": it cannot."""
        course = record.get(trial_id)
        if course is None:
            return
        if event == WENT_BACK and course.anchor is not None:
            anchor = course.anchor
            course.rollbacks += 1
            course.step = anchor.step
            course.watch = anchor.watch._replace(phase=0, rested=0)
            before = [kept for kept in course.kept if kept[0] < anchor.step]
            course.kept = [*before, (anchor.step, course.watch)]
        elif event == GONE:
            course.anchor = None
            course.watch = course.watch._replace(phase=course.watch.phase or 0)

    def asks(self, record: RollbackRecord, trial_id: str) -> Anchor | None:
        """The checkpoint to which the trial is to go back, if its newest report asks for that."""
        course = record.get(trial_id)
        if course is None or self._decide(course).action is not Action.PAUSE:
            return None
        return course.anchor

    def is_stranded(self, record: RollbackRecord, trial_id: str) -> bool:
        """Whether the trial should have gone back and has no checkpoint."""
        course = record.get(trial_id)
        return course is not None and course.anchor is None and course.watch.phase is not None

    def freeze(self, record: RollbackRecord) -> Callable[[], Any]:
        """As `dump`, later: what a course holds is replaced at a report, never changed.

        The trials wait for it: with 10,000 of them a `dump` takes 2 s and this 50 ms.
        """
        now = {trial_id: copy(course) for trial_id, course in record.items()}
        return lambda: self.dump(now)

    def load(self, data: Any) -> RollbackRecord:
        """The record that `dump` wrote; the states of `divergence` are read by its own."""
        like = self._fresh().divergence

        def read(watch: Watch) -> Watch:
            return watch._replace(divergence=decode(watch.divergence, like))

        record = super().load(data)
        for course in record.values():
            course.watch = read(course.watch)
            course.kept = [(step, read(watch)) for step, watch in course.kept]
            if course.anchor is not None:
                course.anchor = course.anchor._replace(watch=read(course.anchor.watch))
        return record

    # -- what is counted -----------------------------------------------------------------------

    def _fresh(self) -> Watch:
        return Watch(None if self.divergence is None else self.divergence.init())

    def _observe(self, watch: Watch, report: Report) -> Watch:
        assert report.loss is not None
        divergence = watch.divergence
        if self.divergence is not None and divergence is not None:
            divergence, _ = self.divergence.update(divergence, report)
        loss = report.loss if math.isfinite(report.loss) else math.inf
        rested = None if watch.rested is None else watch.rested + 1
        watch = watch._replace(divergence=divergence, loss=loss, rested=rested)
        if loss < watch.best:
            return watch._replace(best=loss, best_step=report.step, bad=0, phase=None)
        phase = None if watch.phase is None else watch.phase + 1
        return watch._replace(bad=watch.bad + 1, phase=phase)

    def _mark(self, course: RollbackTrial, checkpoint: str) -> None:
        """The newest report came with `checkpoint`: is it the best?"""
        watch, best = course.watch, course.anchor
        better = math.isfinite(watch.loss) and (best is None or watch.loss < best.loss)
        if better and not self._diverges(watch):
            assert course.step is not None
            course.anchor = Anchor(watch.loss, course.step, checkpoint, watch)

    def _put_back(self, course: RollbackTrial, step: float) -> None:
        """The trial has restarted from below `step`, after a failure."""
        course.kept = [kept for kept in course.kept if kept[0] < step]
        course.watch = course.kept[-1][1] if course.kept else self._fresh()

    # -- what follows from it ------------------------------------------------------------------

    def _decide(self, course: RollbackTrial) -> Decision:
        watch, anchor = course.watch, course.anchor
        if course.step is None:
            return self.keep("nothing to judge yet")
        if watch.rested == 0 and anchor is not None:  # it may be gone since, in a restore
            return self._went_back(anchor, course.rollbacks)
        if self.on_nonfinite == "stop" and not math.isfinite(watch.loss):
            return self.stop("the value is not finite")
        trouble = self._trouble(watch)
        over = watch.phase is not None and watch.phase >= self.recovery_patience
        decide = self.stop if over else self.keep
        if trouble is None:
            return self._in_order(course, decide)
        text, numbers = trouble
        numbers = numbers | {"phase": watch.phase, "recovery_patience": self.recovery_patience}
        if anchor is None:
            text += "; {phase} of {recovery_patience} evaluations of recovery without improvement"
            return decide(text + STRANDED, **numbers)
        if watch.rested is not None and watch.rested <= self.cooldown:
            text += "; {rested} of {cooldown} evaluations of cooldown since the last rollback"
            return decide(text, rested=watch.rested, cooldown=self.cooldown, **numbers)
        numbers |= {"rollback": course.rollbacks + 1, "max_rollbacks": self.max_rollbacks}
        if course.rollbacks >= self.max_rollbacks:
            return self.stop(text + "; no rollback left of {max_rollbacks}", **numbers)
        numbers |= {"back": anchor.loss, "back_step": anchor.step, "checkpoint": anchor.name}
        text += "; back to {back:loss} at step {back_step:g}, rollback {rollback} of"
        return self.pause(text + " {max_rollbacks}", **numbers)

    def _trouble(self, watch: Watch) -> tuple[str, dict[str, Any]] | None:
        """What the trial would have to go back for, in words and numbers."""
        if self._diverges(watch):
            assert self.divergence is not None and watch.divergence is not None
            verdict = self.divergence.verdict(watch.divergence)
            return verdict.text, dict(verdict.numbers)
        if watch.phase is not None or watch.bad < self.patience:
            return None
        text, numbers = _compared(watch)
        return "{bad} evaluations without improvement" + text, {"bad": watch.bad} | numbers

    def _diverges(self, watch: Watch) -> bool:
        if self.divergence is None or watch.divergence is None:
            return False
        return self.divergence.verdict(watch.divergence).action is Action.STOP

    def _in_order(self, course: RollbackTrial, decide: Callable[..., Decision]) -> Decision:
        """A trial that does not diverge, and is not due for a rollback by its patience."""
        watch = course.watch
        if watch.bad == 0:
            return self.keep("improved to {loss:loss}", loss=watch.loss)
        text, numbers = _compared(watch)
        if watch.phase is None:
            text = "{bad} of {patience} evaluations without improvement" + text
            return self.keep(text, bad=watch.bad, patience=self.patience, **numbers)
        text = "{phase} of {recovery_patience} evaluations of recovery without improvement" + text
        text += "" if course.anchor else STRANDED
        numbers |= {"phase": watch.phase, "recovery_patience": self.recovery_patience}
        return decide(text, **numbers)

    def _went_back(self, anchor: Anchor, rollbacks: int) -> Decision:
        return self.keep(
            "went back to {back:loss} at step {back_step:g}, rollback {rollback} of {allowed}",
            back=anchor.loss,
            back_step=anchor.step,
            rollback=rollbacks,
            allowed=self.max_rollbacks,
        )


def _compared(watch: Watch) -> tuple[str, dict[str, Any]]:
    """The newest loss and the best, as far as there are any."""
    numbers: dict[str, Any] = {"loss": watch.loss}
    text = ", value " + ("{loss:loss}" if math.isfinite(watch.loss) else "not finite")
    if watch.best_step is None:
        return text + ", none finite yet", numbers
    numbers |= {"best": watch.best, "best_step": watch.best_step}
    return text + ", best {best:loss} at step {best_step:g}", numbers
