"""What a rule is: `BaseRule`, and its two kinds, `Rule` for one trial and `SweepRule` for all.

Both are frozen configuration over something remembered. A `Rule` remembers each trial by itself,
in a small immutable state; a `SweepRule` remembers the sweep, in one mutable record, as an update
has to stay cheap with thousands of trials. What an adapter asks of either is a `Session`
(`core.track`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Self, TypeVar, overload

from tune_stoppers.codec import decode, encode, pack, unpack
from tune_stoppers.core.checks import require, require_choice
from tune_stoppers.core.decision import Action, Decision, OnNonfinite, Report

R = TypeVar("R")  # a sweep rule's record


class BaseRule(ABC):
    """What every rule has: a name, a version, what it reads, its policy, how it speaks."""

    version: ClassVar[int] = 1  # of what it remembers, and of its decisions
    scheduler: ClassVar[str] = ""  # that carries out what a stopper cannot: pauses, rollbacks

    @property
    def name(self) -> str:
        """The name that its decisions bear."""
        return type(self).__name__

    @property
    def reads(self) -> tuple[str, ...]:
        """Metrics read beside the objective, flat keys."""
        return ()

    @property
    def needs_objective(self) -> bool:
        """Whether the rule reads the objective at all."""
        return True

    @property
    def other_objectives(self) -> tuple[str, ...]:
        """Metrics that rules inside judge in the place of the objective (`On`)."""
        return ()

    @property
    def optional_metrics(self) -> tuple[str, ...]:
        """Those of `reads` that a run may never report: a warning, no error."""
        return ()

    @property
    @abstractmethod
    def signature(self) -> Any:
        """Whose remembered data it can load."""

    @abstractmethod
    def with_policy(self, on_nonfinite: OnNonfinite) -> BaseRule:
        """The same rule under another policy for values that are not finite."""

    def keep(self, text: str, **numbers: Any) -> Decision:
        """A decision to continue, in this rule's name."""
        return Decision(Action.CONTINUE, text, self.name, numbers)

    def pause(self, text: str, **numbers: Any) -> Decision:
        """A decision to pause, in this rule's name."""
        return Decision(Action.PAUSE, text, self.name, numbers)

    def stop(self, text: str, **numbers: Any) -> Decision:
        """A decision to stop, in this rule's name."""
        return Decision(Action.STOP, text, self.name, numbers)

    def __or__(self, other: BaseRule) -> BaseRule:
        """Stop as soon as one of the two does."""
        from tune_stoppers.core.combinators import AnyOf

        return AnyOf(self, other) if isinstance(other, BaseRule) else NotImplemented

    def __and__(self, other: BaseRule) -> BaseRule:
        """Stop when both say so on the same report."""
        from tune_stoppers.core.combinators import AllOf

        return AllOf(self, other) if isinstance(other, BaseRule) else NotImplemented


class State(NamedTuple):
    """A rule's state: plain data. `own` belongs to the rule, the rest to every rule."""

    step: float | None  # of the newest report that counted; None: none yet
    nonfinite: float | None  # the value that ended the trial under on_nonfinite="stop"
    own: Any


@dataclass(frozen=True, kw_only=True)
class Rule(BaseRule):
    """Judges each trial by itself: `init() -> state`, `update(state, report) -> (state, Decision)`.

    To write one, subclass this as a frozen dataclass and define three methods: `start()`, the
    state before the first report; `observe(own, report)`, the state after a fresh report; and
    `decide(own)`, which looks at nothing but the state. The rest is common to all rules: a report
    at a step not beyond the last one changes nothing and gets the same decision again; a report
    that lacks what the rule reads is neutral; values that are not finite follow `on_nonfinite`:
    "worst" shows the rule a loss of infinity, "stop" stops, "ignore" is neutral.
    """

    on_nonfinite: OnNonfinite = "worst"

    scope: Literal["trial", "sweep"] = field(default="trial", init=False, repr=False)

    def __post_init__(self) -> None:
        require_choice("on_nonfinite", self.on_nonfinite, ("worst", "stop", "ignore"))

    @abstractmethod
    def start(self) -> Any:
        """The rule's own state before the first report."""

    @abstractmethod
    def observe(self, own: Any, report: Report) -> Any:
        """The rule's own state after a fresh `report`; `own` is not changed."""

    @abstractmethod
    def decide(self, own: Any) -> Decision:
        """The decision in a state that has seen at least one report."""

    def concerns(self, report: Report) -> bool:
        """Whether `report` carries what the rule reads; otherwise it is neutral."""
        if self.needs_objective and report.loss is None:
            return False
        return all(map(report.metrics.__contains__, self.reads))

    def init(self) -> State:
        """The state before the first report."""
        return State(None, None, self.start())

    def update(self, state: State, report: Report) -> tuple[State, Decision]:
        """The next state and the decision on `report`; the given state is not changed."""
        fresh = state.step is None or report.step > state.step
        if fresh and self.concerns(report):
            state = self._advance(state, report)
        return state, self.verdict(state)

    def _advance(self, state: State, report: Report) -> State:
        bad = next((v for v in self._values(report) if not math.isfinite(v)), None)
        if bad is not None and self.on_nonfinite == "stop":
            return State(report.step, bad, state.own)
        if bad is not None:
            report = self._screened(report)
            if not self.concerns(report):
                return state  # nothing finite is left of it
        return State(report.step, None, self.observe(state.own, report))

    def _screened(self, report: Report) -> Report:
        """`report` with its values that are not finite left out, or a loss of infinity."""
        finite_loss = report.loss is None or math.isfinite(report.loss)
        if self.on_nonfinite == "worst":
            return report if finite_loss else report._replace(loss=math.inf)
        finite = {key: v for key, v in report.metrics.items() if math.isfinite(v)}
        return report._replace(loss=report.loss if finite_loss else None, metrics=finite)

    def _values(self, report: Report) -> list[float]:
        read = [report.metrics[key] for key in self.reads if key in report.metrics]
        return read if report.loss is None or not self.needs_objective else [report.loss, *read]

    def verdict(self, state: State) -> Decision:
        """The decision in `state`, whatever report led to it."""
        if state.step is None:
            return self.keep("nothing to judge yet")
        if state.nonfinite is not None:
            return self.stop("the value is {value}, which is not finite", value=state.nonfinite)
        return self.decide(state.own)

    def stop(self, text: str, **numbers: Any) -> Decision:
        """A decision to stop, in this rule's name; it ends the sweep if that is the scope."""
        decision = super().stop(text, **numbers)
        decision.ends_sweep = self.scope == "sweep"
        return decision

    @overload
    def __or__(self, other: Rule) -> Rule: ...
    @overload
    def __or__(self, other: BaseRule) -> BaseRule: ...
    def __or__(self, other: BaseRule) -> BaseRule:
        """Stop as soon as one of the two does; across trials if the other one looks there."""
        return super().__or__(other)

    @overload
    def __and__(self, other: Rule) -> Rule: ...
    @overload
    def __and__(self, other: BaseRule) -> BaseRule: ...
    def __and__(self, other: BaseRule) -> BaseRule:
        """Stop when both say so on the same report; across trials if the other one looks there."""
        return super().__and__(other)

    def with_policy(self, on_nonfinite: OnNonfinite) -> Self:
        """The same rule under another policy for values that are not finite."""
        return replace(self, on_nonfinite=on_nonfinite)

    @property
    def signature(self) -> tuple[str, Any]:
        """Name and version, with those of its members: whose states it can load."""
        return type(self).__name__, self.version

    def dump(self, state: State) -> dict[str, Any]:
        """`state` as JSON data, with the rule's signature."""
        name, version = self.signature
        return {"rule": name, "version": version, "state": encode(state)}

    def load(self, data: Mapping[str, Any]) -> State:
        """The state that `dump` wrote. `ValueError` if it is another rule's or version's."""
        expected = self.signature
        got = (data.get("rule"), data.get("version"))
        require(got == expected, f"This state is of rule and version {got}, expected {expected}.")
        state = decode(data.get("state"), self.init())
        assert isinstance(state, State)
        return state


class SweepRule(BaseRule, Generic[R]):
    """Looks across trials: one mutable record for the sweep; an update costs O(log n) in them.

    The calls a rule gets: `update` for every report that carries the objective, in the order in
    which the reports arrive, repeats excepted; `ended` when a trial has ended by itself or by
    somebody else's decision, `unjudged` instead if its last report lacks the objective; `lost`
    when its process died (it may come back) or it was dropped;
    `note` for what a scheduler did on the rule's behalf; `forget` for trials that never were,
    after a restore. All are deterministic.
    """

    scope: ClassVar[str] = "sweep"

    @property
    def signature(self) -> str:
        """Name, version and parameters: whose record it can load."""
        return f"{self!r} version {self.version}"

    def with_policy(self, on_nonfinite: OnNonfinite) -> Self:
        """The same rule under another policy; `ValueError` where it has none to choose."""
        if is_dataclass(self) and any(f.name == "on_nonfinite" for f in fields(self)):
            return replace(self, on_nonfinite=on_nonfinite)
        require(
            on_nonfinite != "ignore",
            f"{self.name} stops a trial whose value is not finite, and cannot ignore it.",
        )
        return self

    @property
    def may_lack(self) -> tuple[str, ...]:
        """Those of `reads` that a report, or all of them, may lack without a word."""
        return ()

    def judges(self, report: Report) -> bool:
        """Whether `report` carries what an update needs; otherwise it is left out."""
        return report.loss is not None or not self.needs_objective

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

    def finished(self, record: R, trial_id: str) -> None:
        """The trial has come to its own end, as far as a stopper can tell: its last report."""

    @abstractmethod
    def lost(self, record: R, trial_id: str) -> None:
        """The trial's process died, or it was dropped: no evidence against it."""

    @abstractmethod
    def forget(self, record: R, trial_ids: Iterable[str]) -> None:
        """Drop everything about these trials: in the sweep as restored they never were."""

    def note(self, record: R, trial_id: str, event: str, numbers: Mapping[str, Any]) -> None:
        """Something that the scheduler did, journalled as `event` with its `numbers`."""

    @property
    def record_type(self) -> Any:
        """The type of the record, by whose hints `load` reads it."""
        return type(self.init())

    def dump(self, record: R) -> Any:
        """`record` as JSON data (floats that JSON lacks may be in it)."""
        return pack(record)

    def freeze(self, record: R) -> Callable[[], Any]:
        """What makes the `dump` of `record` as it is now; called later, on another thread.

        For a rule whose `dump` takes long: to keep what it needs takes less.
        """
        data = self.dump(record)
        return lambda: data

    def load(self, data: Any) -> R:
        """The record that `dump` wrote. `ValueError` if it is no such record."""
        record: R = unpack(data, self.record_type)
        return record
