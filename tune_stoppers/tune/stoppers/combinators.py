"""Stoppers whose answer is explained, and stoppers side by side."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ray.tune import Stopper

from tune_stoppers.core import Action, Decision, require_number
from tune_stoppers.journal.lines import USER
from tune_stoppers.metrics import closest, flat_keys, logger, lookup, number
from tune_stoppers.result_keys import STOP_REASON
from tune_stoppers.tune.restore.mending import mend_before_restore


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

    def __or__(self, other: "Stops") -> "AnyOf":
        return AnyOf(self, other) if is_stop(other) else NotImplemented

    def __ror__(self, other: "Stops") -> "AnyOf":
        return AnyOf(other, self) if is_stop(other) else NotImplemented

    def __and__(self, other: "Stops") -> "AllOf":
        return AllOf(self, other) if is_stop(other) else NotImplemented

    def __rand__(self, other: "Stops") -> "AllOf":
        return AllOf(other, self) if is_stop(other) else NotImplemented


# what Ray takes as `stop`: a stopper, {"training_iteration": 100}, or (trial_id, result) -> bool
Stops: TypeAlias = Stopper | Mapping[str, float] | Callable[[str, dict[str, Any]], Any]


def as_stopper(given: Stops) -> Stopper:
    """A stopper of whatever Ray takes as `stop`; ValueError and TypeError where it is none."""
    if isinstance(given, Stopper):
        return given
    return LimitStopper(given) if isinstance(given, Mapping) else FunctionStopper(given)


def is_stop(given: object) -> bool:
    """Whether Ray takes it as `stop`: a class, say, is one that still has to be called."""
    if isinstance(given, (Stopper, Mapping)):
        return True
    return callable(given) and not isinstance(given, type) and not hasattr(given, "stop_all")


class LimitStopper(ExplainedStopper):
    """Ray's stop dict: a trial ends once one of the metrics has reached its limit (>=).

    A metric that is not there stops nothing; one warning says so, as in Ray.
    """

    def __init__(self, limits: Mapping[str, float]) -> None:
        if not limits:
            raise ValueError("a stop dict needs a metric and its limit, got {}.")
        for name, limit in limits.items():
            if not isinstance(name, str):
                raise TypeError(f"a stop dict maps names of metrics to limits, got {name!r}.")
            require_number(f"the limit of {name!r}", limit)
        self.limits = dict(limits)
        self._warned: set[str] = set()

    def judge(self, trial_id: str, result: dict[str, Any]) -> Decision:
        for name, limit in self.limits.items():
            value = number(lookup(result, name))
            if value is None:
                self._warn(name, result)
            elif value >= limit:
                text = f"{name} {value:g} has reached {limit:g}"
                return Decision(Action.STOP, text, type(self).__name__)
        return Decision(Action.CONTINUE, "no limit is reached", type(self).__name__)

    def describe(self, decision: Decision) -> str:
        return f"{type(self).__name__}: {decision.text}"

    def _warn(self, name: str, result: dict[str, Any]) -> None:
        if name not in self._warned:
            self._warned.add(name)
            told = "stop: %r is not reported and stops nothing.%s"
            logger.warning(told, name, closest(name, flat_keys(result)))


class FunctionStopper(ExplainedStopper):
    """Ray's stop function: a trial ends once `function(trial_id, result)` is true."""

    def __init__(self, function: Callable[[str, dict[str, Any]], Any]) -> None:
        self.function = function

    def judge(self, trial_id: str, result: dict[str, Any]) -> Decision:
        if not self.function(trial_id, result):
            return Decision(Action.CONTINUE, "the function says no", type(self).__name__)
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return Decision(Action.STOP, f"{name} says so", type(self).__name__)

    def describe(self, decision: Decision) -> str:
        return f"{type(self).__name__}: {decision.text}"


class _CombinedStopper(ExplainedStopper):
    """Stoppers side by side: each sees every report, also one on which another fires."""

    def __init__(self, *stoppers: Stops) -> None:
        self.name = type(self).__name__
        if not stoppers:
            raise ValueError(f"{self.name} needs at least one stopper, got none.")
        for stopper in stoppers:
            if not is_stop(stopper):
                raise TypeError(
                    f"{self.name} combines stoppers, got {stopper!r}. It takes what Ray takes as "
                    "stop: stoppers, dicts of limits, functions of (trial_id, result). Rules "
                    "combine with tune_stoppers.rules."
                )
        self.stoppers = tuple(map(as_stopper, stoppers))

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
    """Stops a trial as soon as one of the stoppers does.

    Members may be whatever Ray takes as `stop`: stoppers of Ray's own, a dict, a function::

        PatienceStopper("loss", "min") | {"training_iteration": 100}
        AnyOf(PatienceStopper("loss", "min"), lambda trial_id, result: result["loss"] > 10)
    """

    def _enough(self, count: int) -> bool:
        return count > 0

    def stop_all(self) -> bool:
        return self._ended or any(self._asked_all())


class AllOf(_CombinedStopper):
    """Stops a trial when all the stoppers say so on the same report; nothing is latched.

    Members are as in `AnyOf`.
    """

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
