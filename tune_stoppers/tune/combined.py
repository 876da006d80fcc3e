"""Stoppers whose answer is explained, and stoppers side by side."""

from abc import abstractmethod
from typing import Any

from ray.tune import Stopper

from tune_stoppers.core import Action, Decision
from tune_stoppers.journal import USER
from tune_stoppers.tune.mending import mend_before_restore
from tune_stoppers.tune.reader import STOP_REASON


class ExplainedStopper(Stopper):
    """A stopper whose answer is a decision with a reason, and that combines with `|` and `&`."""

    _ended = False  # a decision taken has ended the sweep

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        mend_before_restore()

    @abstractmethod
    def judge(self, trial_id: str, result: dict[str, Any]) -> Decision:
        """The decision on a nested result of Ray's; may mark the result, never ends it."""

    @abstractmethod
    def describe(self, decision: Decision) -> str:
        """`decision` in words, in the metric's own units."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        decision = self.judge(trial_id, result)
        if decision.action is not Action.STOP:
            return False
        result[STOP_REASON] = self.describe(decision)
        self._ended = self._ended or decision.ends_sweep
        return True

    def stop_all(self) -> bool:
        return self._ended

    def __or__(self, other: Stopper) -> "AnyOf":
        return AnyOf(self, other) if isinstance(other, Stopper) else NotImplemented

    def __ror__(self, other: Stopper) -> "AnyOf":
        return AnyOf(other, self) if isinstance(other, Stopper) else NotImplemented

    def __and__(self, other: Stopper) -> "AllOf":
        return AllOf(self, other) if isinstance(other, Stopper) else NotImplemented

    def __rand__(self, other: Stopper) -> "AllOf":
        return AllOf(other, self) if isinstance(other, Stopper) else NotImplemented


class _CombinedStopper(ExplainedStopper):
    """Stoppers side by side: each sees every report, also one on which another fires."""

    def __init__(self, *stoppers: Stopper) -> None:
        self.name = type(self).__name__
        if not stoppers:
            raise ValueError(f"{self.name} needs at least one stopper, got none.")
        for stopper in stoppers:
            if not isinstance(stopper, Stopper):
                raise TypeError(
                    f"{self.name} combines stoppers, got {stopper!r}. "
                    "Rules combine with tune_stoppers.rules."
                )
        self.stoppers = stoppers

    def judge(self, trial_id: str, result: dict[str, Any]) -> Decision:
        decided = [_ask(stopper, trial_id, result) for stopper in self.stoppers]
        asking = [decision for decision in decided if decision.action is Action.STOP]
        by_hand = next((decision for decision in asking if decision.rule == USER), None)
        if by_hand is not None:
            return by_hand  # a user's word needs no second
        if not self._enough(len(asking)):
            text = f"{len(asking)} of {len(decided)} stoppers ask to stop"
            return Decision(Action.CONTINUE, text, self.name)
        return Decision(
            Action.STOP,
            "; ".join(decision.text for decision in asking),
            self.name,
            ends_sweep=any(decision.ends_sweep for decision in asking),
        )

    def describe(self, decision: Decision) -> str:
        return decision.say()

    def _asked_all(self) -> list[bool]:
        """Every member's own `stop_all`: Ray's `TimeoutStopper` keeps its clock in that call."""
        return [stopper.stop_all() for stopper in self.stoppers]

    @abstractmethod
    def _enough(self, count: int) -> bool:
        """Whether `count` of the stoppers are enough to stop."""


class AnyOf(_CombinedStopper):
    """Stops a trial as soon as one of the stoppers does; plain Ray stoppers may be members."""

    def _enough(self, count: int) -> bool:
        return count > 0

    def stop_all(self) -> bool:
        return self._ended or any(self._asked_all())


class AllOf(_CombinedStopper):
    """Stops a trial when all the stoppers say so on the same report; nothing is latched."""

    def _enough(self, count: int) -> bool:
        return count == len(self.stoppers)

    def stop_all(self) -> bool:
        return self._ended or all(self._asked_all())


def _ask(stopper: Stopper, trial_id: str, result: dict[str, Any]) -> Decision:
    """A member's decision with its description as text, in the metric's own units."""
    if not isinstance(stopper, ExplainedStopper):
        action = Action.STOP if stopper(trial_id, result) else Action.CONTINUE
        return Decision(action, f"{type(stopper).__name__} fired", type(stopper).__name__)
    decision = stopper.judge(trial_id, result)
    text = stopper.describe(decision)
    return Decision(decision.action, text, decision.rule, ends_sweep=decision.ends_sweep)
