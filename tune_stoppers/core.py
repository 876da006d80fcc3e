"""The vocabulary: Report, Decision, Action, Rule, the combinators and the errors.

A rule is a state machine over reports. It is pure: no I/O, no clock, no randomness, no Ray, no
torch. Adapters (a Ray stopper or scheduler, a Trainer callback, a plain loop, the replay) own
the state, turn what they see into a `Report`, and act on the `Decision`.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, ClassVar, Literal, NamedTuple

from tune_stoppers.codec import decode, encode

OnNonfinite = Literal["worst", "stop", "ignore"]
OnMissing = Literal["raise", "skip"]
Mode = Literal["min", "max"]


class Action(Enum):
    """What a decision asks for; STOP beats PAUSE beats CONTINUE."""

    CONTINUE = "CONTINUE"
    PAUSE = "PAUSE"
    STOP = "STOP"

    @property
    def severity(self) -> int:
        """0 for CONTINUE, 1 for PAUSE, 2 for STOP."""
        return _SEVERITY[self]


_SEVERITY = {Action.CONTINUE: 0, Action.PAUSE: 1, Action.STOP: 2}


class MissingMetricError(LookupError):
    """No report of the sweep has carried a metric that a rule reads."""


def require(condition: bool, message: str) -> None:
    """Raise `ValueError(message)` unless `condition` holds."""
    if not condition:
        raise ValueError(message)


def require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise `ValueError` unless `value` is one of `choices`."""
    require(value in choices, f"{name} must be one of {', '.join(choices)}, got {value!r}.")


def require_number(
    name: str,
    value: object,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    integer: bool = False,
) -> None:
    """Raise `TypeError` unless `value` is a finite number, `ValueError` outside the bounds."""
    kinds: tuple[type, ...] = (int,) if integer else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool):
        kind = "an integer" if integer else "a number"
        raise TypeError(f"{name} must be {kind}, got {value!r}.")
    assert isinstance(value, (int, float))
    require(_is_finite(value), f"{name} must be finite, got {value!r}.")
    require(at_least is None or value >= at_least, f"{name} must be >= {at_least}, got {value!r}.")
    require(at_most is None or value <= at_most, f"{name} must be <= {at_most}, got {value!r}.")
    require(above is None or value > above, f"{name} must be > {above}, got {value!r}.")
    require(below is None or value < below, f"{name} must be < {below}, got {value!r}.")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False


class Report(NamedTuple):
    """One evaluation as a rule sees it."""

    trial_id: str
    step: float  # the value of `time_attr`
    loss: float | None  # the objective, lower is better; None: this report does not carry it
    metrics: Mapping[str, float] = {}  # the other metrics that the rule says it reads, flat keys


class _InUnits:
    """A number that `{x:loss}` prints in the user's units: negated under mode="max"."""

    __slots__ = ("sign", "value")

    def __init__(self, value: Any, sign: int) -> None:
        self.value, self.sign = value, sign

    def __format__(self, spec: str) -> str:
        if spec == "loss":
            return f"{self.sign * self.value + 0.0:.6g}"  # + 0.0: never "-0"
        return format(self.value, spec or (".6g" if isinstance(self.value, float) else ""))


@dataclass(slots=True)  # not frozen: that would make one dearer
class Decision:
    """An action with its reason; deciding not to stop has a reason too.

    `text` may refer to `numbers` as a format string. `{best:loss}` marks a value in loss units,
    which is shown with its sign changed back when the metric is maximised, so that texts speak of
    "past", "better" and "worse" and never of "above" and "below".
    """

    action: Action
    text: str
    rule: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    ends_sweep: bool = False  # a STOP that ends every trial
    parts: tuple["Decision", ...] = ()  # what a combinator combined

    def __post_init__(self) -> None:
        if not self.text:
            raise ValueError("A decision needs a reason, got an empty text.")

    @property
    def reason(self) -> str:
        """The reason in loss units."""
        return self.say()

    def say(self, sign: int = 1) -> str:
        """The reason; `sign=-1` puts losses back into the units of a maximised metric."""
        if self.parts:
            listed = "; ".join(f"{part.rule}: {part.say(sign)}" for part in self.parts)
            return f"{self.text} ({listed})"
        if not self.numbers:
            return self.text
        shown = {k: _InUnits(v, sign) for k, v in self.numbers.items()}
        return self.text.format_map(shown)

    def plain_numbers(self) -> dict[str, Any]:
        """The numbers compared, for the journal; a combinator's are in a list under `parts`."""
        mine = {k: v for k, v in self.numbers.items() if isinstance(v, (int, float, str))}
        parts = [{"rule": part.rule} | part.plain_numbers() for part in self.parts]
        return mine | ({"parts": parts} if parts else {})


class State(NamedTuple):
    """A rule's state: plain data. `own` belongs to the rule, the rest to every rule."""

    step: float | None  # of the newest report that counted; None: none yet
    nonfinite: float | None  # the value that ended the trial under on_nonfinite="stop"
    own: Any


@dataclass(frozen=True, kw_only=True)
class Rule(ABC):
    """Frozen configuration, `init() -> state`, `update(state, report) -> (state, Decision)`.

    To write one, subclass this as a frozen dataclass and define three methods: `start()`, the
    state before the first report; `observe(own, report)`, the state after a fresh report; and
    `decide(own)`, which looks at nothing but the state. The rest is common to all rules: a report
    at a step not beyond the last one changes nothing and gets the same decision again; a report
    that lacks what the rule reads is neutral; values that are not finite follow `on_nonfinite`:
    "worst" shows the rule a loss of infinity, "stop" stops, "ignore" is neutral.
    """

    on_nonfinite: OnNonfinite = "worst"

    version: ClassVar[int] = 1
    scope: Literal["trial", "sweep"] = field(default="trial", init=False, repr=False)

    def __post_init__(self) -> None:
        require_choice("on_nonfinite", self.on_nonfinite, ("worst", "stop", "ignore"))

    @property
    def reads(self) -> tuple[str, ...]:
        """Metrics read beside the objective, flat keys."""
        return ()

    @property
    def needs_objective(self) -> bool:
        """Whether the rule reads the objective at all."""
        return True

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

    def keep(self, text: str, **numbers: Any) -> Decision:
        """A decision to continue, in this rule's name."""
        return Decision(Action.CONTINUE, text, type(self).__name__, numbers)

    def stop(self, text: str, **numbers: Any) -> Decision:
        """A decision to stop, in this rule's name; it ends the sweep if that is the scope."""
        name = type(self).__name__
        return Decision(Action.STOP, text, name, numbers, ends_sweep=self.scope == "sweep")

    def with_policy(self, on_nonfinite: OnNonfinite) -> "Rule":
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

    def __or__(self, other: "Rule") -> "Rule":
        return AnyOf(self, other) if isinstance(other, Rule) else NotImplemented

    def __and__(self, other: "Rule") -> "Rule":
        return AllOf(self, other) if isinstance(other, Rule) else NotImplemented


@dataclass(frozen=True, init=False)
class _Combined(Rule):
    """Rules side by side: every child sees every report, also one on which another fires."""

    children: tuple[Rule, ...] = ()

    def _set(self, children: tuple[Rule, ...]) -> None:
        name = type(self).__name__
        require(bool(children), f"{name} needs at least one rule, got none.")
        for child in children:
            if not isinstance(child, Rule):
                raise TypeError(f"{name} combines rules, got {child!r}.")
        object.__setattr__(self, "on_nonfinite", "worst")  # each child has its own policy
        object.__setattr__(self, "scope", "trial")  # children say themselves what they end
        object.__setattr__(self, "children", children)

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(key for child in self.children for key in child.reads))

    @property
    def needs_objective(self) -> bool:
        return any(child.needs_objective for child in self.children)

    def concerns(self, report: Report) -> bool:
        return any(child.concerns(report) for child in self.children)

    @property
    def signature(self) -> tuple[str, Any]:
        signatures = [child.signature for child in self.children]
        names = ", ".join(name for name, _ in signatures)
        return f"{type(self).__name__}({names})", [version for _, version in signatures]

    def with_policy(self, on_nonfinite: OnNonfinite) -> Rule:
        changed = copy.copy(self)
        changed._set(tuple(child.with_policy(on_nonfinite) for child in self.children))
        return changed

    def start(self) -> tuple[State, ...]:
        return tuple(child.init() for child in self.children)

    def observe(self, own: tuple[State, ...], report: Report) -> tuple[State, ...]:
        return tuple(
            child.update(state, report)[0] for child, state in zip(self.children, own, strict=True)
        )

    def decide(self, own: tuple[State, ...]) -> Decision:
        decided = [c.verdict(s) for c, s in zip(self.children, own, strict=True)]
        return self._combine(own, decided)

    def _advance(self, state: State, report: Report) -> State:
        own = self.observe(state.own, report)
        return state if own == state.own else State(report.step, None, own)

    @abstractmethod
    def _combine(self, own: tuple[State, ...], decided: list[Decision]) -> Decision:
        """One decision out of the children's, given in order."""


@dataclass(frozen=True, init=False)
class AtLeast(_Combined):
    """The action that at least `k` of the rules ask for, or something stronger."""

    k: int = 1

    def __init__(self, k: int, *rules: Rule) -> None:
        self._set(rules)
        require_number(f"{type(self).__name__} k", k, at_least=1, integer=True)
        require(k <= len(rules), f"AtLeast needs k <= the number of rules, {len(rules)}, got {k}.")
        object.__setattr__(self, "k", k)

    def _combine(self, own: tuple[State, ...], decided: list[Decision]) -> Decision:
        ordered = sorted(decided, key=lambda d: -d.action.severity)
        action = ordered[self.k - 1].action
        asking = [d for d in decided if d.action is not Action.CONTINUE]
        if action is not Action.CONTINUE and len(asking) == 1:
            return asking[0]
        ends_sweep = action is Action.STOP and any(d.ends_sweep for d in asking)
        text = f"{len(asking)} of {len(decided)} rules ask to end or pause, {self.k} needed"
        shown = tuple(asking or decided)
        return Decision(action, text, type(self).__name__, ends_sweep=ends_sweep, parts=shown)


@dataclass(frozen=True, init=False)
class AnyOf(AtLeast):
    """Stops as soon as one of the rules does."""

    def __init__(self, *rules: Rule) -> None:
        super().__init__(1, *rules)


@dataclass(frozen=True, init=False)
class AllOf(AtLeast):
    """Stops when all the rules say so on the same report; nothing is latched."""

    def __init__(self, *rules: Rule) -> None:
        super().__init__(max(len(rules), 1), *rules)


@dataclass(frozen=True, init=False)
class Not(_Combined):
    """Stops where the rule continues, continues where it stops or pauses.

    Never stops before the rule has seen a report that it could judge.
    """

    def __init__(self, rule: Rule) -> None:
        self._set((rule,))

    def _combine(self, own: tuple[State, ...], decided: list[Decision]) -> Decision:
        (child,) = decided
        action = Action.STOP if child.action is Action.CONTINUE else Action.CONTINUE
        text = f"the opposite of {child.action.value}"
        return Decision(action, text, type(self).__name__, parts=(child,))


@dataclass(frozen=True, init=False)
class After(_Combined):
    """The rule sees and counts everything, and decides on reports at `step` or later."""

    step: float = 0.0

    def __init__(self, step: float, rule: Rule) -> None:
        self._set((rule,))
        require_number("After step", step, at_least=0)
        object.__setattr__(self, "step", step)

    def _combine(self, own: tuple[State, ...], decided: list[Decision]) -> Decision:
        (decision,) = decided
        early = own[0].step is None or own[0].step < self.step
        if decision.action is Action.CONTINUE or not early:
            return decision
        text = f"not before step {self.step:g}"
        return Decision(Action.CONTINUE, text, type(self).__name__, parts=(decision,))
