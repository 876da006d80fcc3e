"""Rules that look across trials: one mutable record for the sweep instead of a state per trial.

A scheduler owns the record, hands the rule what happened, and acts on the decision. Whatever
changes the record is a line of the journal, so the record can always be had again by `fold`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

from tune_stoppers.core import Decision, Report

R = TypeVar("R")  # the record


class SweepRule(ABC, Generic[R]):
    """Frozen configuration over a mutable record; an update costs O(log n) in the trials.

    The calls a rule gets: `update` for every report that carries the objective, in the order in
    which the reports arrive, repeats excepted; `ended` when a trial has ended by itself or by
    somebody else's decision, `unjudged` instead if its last report lacks the objective; `lost`
    when its process died (it may come back) or it was dropped;
    `note` for what a scheduler did on the rule's behalf; `forget` for trials that never were,
    after a restore. All are deterministic.
    """

    version: ClassVar[int] = 1  # of the record that `dump` writes

    @property
    def reads(self) -> tuple[str, ...]:
        """Metrics read beside the objective, flat keys."""
        return ()

    @property
    def needs_objective(self) -> bool:
        """Whether the rule reads the objective at all."""
        return True

    @property
    def signature(self) -> str:
        """Name, version and parameters: whose record it can load."""
        return f"{self!r} version {self.version}"

    @abstractmethod
    def init(self) -> R:
        """The record before the first report."""

    @abstractmethod
    def update(
        self,
        record: R,
        report: Report,
        *,
        checkpoint: str | None = None,
        since_restore: int | None = None,
    ) -> Decision:
        """Take in a report and decide; `record` is changed.

        A report at the step last seen of its trial gets the same decision and changes nothing;
        one at an earlier step means that the trial went back.

        Args:
            checkpoint: the name of the checkpoint that came with the report, None if none did.
            since_restore: Ray's `iterations_since_restore`, None if not reported.
        """

    @abstractmethod
    def ended(self, record: R, report: Report) -> None:
        """The trial has ended with this last report, which may have been judged already."""

    def unjudged(self, record: R, trial_id: str, step: float | None) -> None:
        """The trial has ended at `step`, and its last report told nothing that could be judged.

        `step` is None where it is not known.
        """
        self.lost(record, trial_id)

    @abstractmethod
    def lost(self, record: R, trial_id: str) -> None:
        """The trial's process died, or it was dropped: no evidence against it."""

    @abstractmethod
    def forget(self, record: R, trial_ids: Iterable[str]) -> None:
        """Drop everything about these trials: in the sweep as restored they never were."""

    def note(self, record: R, trial_id: str, event: str, numbers: Mapping[str, Any]) -> None:
        """Something that the scheduler did, journalled as `event` with its `numbers`."""

    @abstractmethod
    def dump(self, record: R) -> Any:
        """`record` as JSON data (floats that JSON lacks may be in it)."""

    def freeze(self, record: R) -> Callable[[], Any]:
        """What makes the `dump` of `record` as it is now; called later, on another thread.

        For a rule whose `dump` takes long: to keep what it needs takes less.
        """
        data = self.dump(record)
        return lambda: data

    @abstractmethod
    def load(self, data: Any) -> R:
        """The record that `dump` wrote."""
