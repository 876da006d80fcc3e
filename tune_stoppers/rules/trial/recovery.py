"""Recovery: patience with a second chance, of which a trial may have only so many."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from tune_stoppers.core import Decision, Report, Rule, require_number


class RecoveryState(NamedTuple):
    """What `Recovery` remembers."""

    best: float  # the lowest finite loss; infinity: none yet
    best_step: float | None  # where that was
    bad: int  # evaluations in a row without improvement
    recoveries: int  # recovery phases that an improvement has ended
    loss: float  # the newest loss


@dataclass(frozen=True)
class Recovery(Rule):
    """Stop a trial that neither improves nor, given more time, recovers.

    Formula: an evaluation improves iff loss < best, strictly. The `patience`-th bad evaluation in
    a row begins a recovery phase; an improvement ends it, sets the count back to 0 and counts as
    one recovery; the (`patience` + `recovery_patience`)-th bad evaluation stops. With
    `max_recoveries` n, the phase after the n-th recovery is not granted: the trial stops at the
    `patience`-th bad evaluation, where that phase would begin.

    Without `max_recoveries` it stops where `Patience` of the sum does, and says which phase the
    trial is in. `RollbackScheduler` does something in that phase; this rule only waits.

    Args:
        patience: evaluations, at least 1.
        recovery_patience: further evaluations, at least 1.
        max_recoveries: recoveries after which no further phase is granted, at least 0 (plain
            patience); None: any number.

    A tie is no improvement. NaN and infinities ("worst") are bad evaluations, also the first; the
    first finite value always improves. A report without the metric, or at a step already seen,
    changes nothing.

    Example: patience 2, recovery_patience 2: losses 3, 4, 4, 2, 3, 3, 3, 2 stop at the eighth, the
    fourth in a row not below 2; the fourth evaluation was a recovery.
    """

    patience: int = 5
    recovery_patience: int = 3
    max_recoveries: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("patience", self.patience, at_least=1, integer=True)
        require_number("recovery_patience", self.recovery_patience, at_least=1, integer=True)
        if self.max_recoveries is not None:
            require_number("max_recoveries", self.max_recoveries, at_least=0, integer=True)

    def start(self) -> RecoveryState:
        return RecoveryState(math.inf, None, 0, 0, math.inf)

    def observe(self, own: RecoveryState, report: Report) -> RecoveryState:
        assert report.loss is not None
        own = own._replace(loss=report.loss)
        if not report.loss < own.best:
            return own._replace(bad=own.bad + 1)
        recovered = self.patience <= own.bad < self._allowed(own)
        return RecoveryState(
            best=report.loss,
            best_step=report.step,
            bad=0,
            recoveries=own.recoveries + recovered,
            loss=report.loss,
        )

    def decide(self, own: RecoveryState) -> Decision:
        if own.bad == 0:
            text = "improved to {loss:loss}, {recoveries} recoveries so far"
            return self.keep(text, loss=own.loss, recoveries=own.recoveries)
        numbers: dict[str, Any] = {"bad": own.bad, "loss": own.loss}
        compared = ", value " + ("{loss:loss}" if math.isfinite(own.loss) else "not finite")
        if own.best_step is None:
            compared += ", none finite yet"
        else:
            compared += ", best {best:loss} at step {best_step:g}"
            numbers |= {"best": own.best, "best_step": own.best_step}
        if own.bad < self.patience:
            text = "{bad} of {patience} evaluations without improvement"
            return self.keep(text + compared, patience=self.patience, **numbers)
        if self._spent(own):
            text = "{bad} evaluations without improvement, and no recovery left of {allowed}"
            return self.stop(text + compared, allowed=self.max_recoveries, **numbers)
        over = own.bad - self.patience
        numbers |= {"over": over, "recovery_patience": self.recovery_patience}
        text = "{over} of {recovery_patience} evaluations of recovery without improvement"
        return (self.stop if over >= self.recovery_patience else self.keep)(
            text + compared, **numbers
        )

    def _spent(self, own: RecoveryState) -> bool:
        return self.max_recoveries is not None and own.recoveries >= self.max_recoveries

    def _allowed(self, own: RecoveryState) -> int:
        """The bad evaluation in a row that stops the trial."""
        return self.patience + (0 if self._spent(own) else self.recovery_patience)
