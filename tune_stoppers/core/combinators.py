"""Rules side by side: `AnyOf`, `AllOf`, `AtLeast`, `Not` and `After`, of either kind of rule.

Every child sees every report, also one on which another fires, and nothing is latched: a child
counts while its own decision on this report asks for something. STOP beats PAUSE beats CONTINUE.
Rules for one trial combine to a rule for one trial. Where a child looks across trials the
combination does too: it is a `SweepCombination`, whatever combinator it was written with.

Over 350 lines: the two kinds of combination answer the same methods, and are read side by side.
"""

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Self

from tune_stoppers.core.checks import require, require_number
from tune_stoppers.core.decision import Action, Decision, OnNonfinite, Report
from tune_stoppers.core.per_trial import PerTrial
from tune_stoppers.core.rule import BaseRule, Rule, State, SweepRule


def at_least(name: str, k: int, decided: list[Decision]) -> Decision:
    """The action that at least `k` of the rules ask for, or something stronger."""
    ordered = sorted(decided, key=lambda d: -d.action.severity)
    action = ordered[k - 1].action
    asking = [d for d in decided if d.action is not Action.CONTINUE]
    if action is not Action.CONTINUE and len(asking) == 1:
        return asking[0]
    ends_sweep = action is Action.STOP and any(d.ends_sweep for d in asking)
    text = f"{len(asking)} of {len(decided)} rules ask to end or pause, {k} needed"
    return Decision(action, text, name, ends_sweep=ends_sweep, parts=tuple(asking or decided))


def opposite(name: str, decided: list[Decision]) -> Decision:
    """STOP where the only rule continues, CONTINUE where it stops or pauses."""
    (child,) = decided
    action = Action.STOP if child.action is Action.CONTINUE else Action.CONTINUE
    return Decision(action, f"the opposite of {child.action.value}", name, parts=(child,))


def not_before(name: str, step: float, now: float | None, decided: list[Decision]) -> Decision:
    """What the only rule decides, from `step` on."""
    (decision,) = decided
    if decision.action is Action.CONTINUE or (now is not None and now >= step):
        return decision
    return Decision(Action.CONTINUE, f"not before step {step:g}", name, parts=(decision,))


def _merged(names: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """All of them, each once, in their order."""
    return tuple(dict.fromkeys(chain.from_iterable(names)))


def check_children(name: str, children: tuple[Any, ...]) -> None:
    """Raise unless there is at least one, and each is a rule."""
    require(bool(children), f"{name} needs at least one rule, got none.")
    for child in children:
        if not isinstance(child, BaseRule):
            raise TypeError(f"{name} combines rules, got {child!r}.")


@dataclass(frozen=True, init=False)
class _Combined(Rule):
    """Rules for one trial side by side."""

    children: tuple[Rule, ...] = ()

    def _set(self, children: tuple[Any, ...]) -> None:
        check_children(self.name, children)
        object.__setattr__(self, "on_nonfinite", "worst")  # each child has its own policy
        object.__setattr__(self, "scope", "trial")  # children say themselves what they end
        object.__setattr__(self, "children", children)

    @property
    def reads(self) -> tuple[str, ...]:
        return _merged(child.reads for child in self.children)

    @property
    def needs_objective(self) -> bool:
        return any(child.needs_objective for child in self.children)

    @property
    def other_objectives(self) -> tuple[str, ...]:
        return _merged(child.other_objectives for child in self.children)

    @property
    def optional_metrics(self) -> tuple[str, ...]:
        return _merged(child.optional_metrics for child in self.children)

    def concerns(self, report: Report) -> bool:
        return any(child.concerns(report) for child in self.children)

    @property
    def signature(self) -> tuple[str, Any]:
        signatures = [child.signature for child in self.children]
        names = ", ".join(name for name, _ in signatures)
        return f"{self.name}({names})", [version for _, version in signatures]

    def with_policy(self, on_nonfinite: OnNonfinite) -> Self:
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
        return self._combine(own[0].step, decided)

    def _advance(self, state: State, report: Report) -> State:
        own = self.observe(state.own, report)
        return state if own == state.own else State(report.step, None, own)

    @abstractmethod
    def _combine(self, now: float | None, decided: list[Decision]) -> Decision:
        """One decision out of the children's, in order; `now`: where the first of them is."""


@dataclass(frozen=True, init=False)
class AtLeast(_Combined):
    """The action that at least `k` of the rules ask for, or something stronger."""

    k: int = 1

    def __new__(cls, k: int = 1, *rules: BaseRule) -> Any:
        return _made(cls, rules, k=k)

    def __init__(self, k: int, *rules: BaseRule) -> None:
        self._set(rules)
        check_count(self.name, k, rules)
        object.__setattr__(self, "k", k)

    def _combine(self, now: float | None, decided: list[Decision]) -> Decision:
        return at_least(self.name, self.k, decided)


@dataclass(frozen=True, init=False)
class AnyOf(AtLeast):
    """Stops as soon as one of the rules does."""

    def __new__(cls, *rules: BaseRule) -> Any:
        return _made(cls, rules, k=1)

    def __init__(self, *rules: BaseRule) -> None:
        super().__init__(1, *rules)


@dataclass(frozen=True, init=False)
class AllOf(AtLeast):
    """Stops when all the rules say so on the same report."""

    def __new__(cls, *rules: BaseRule) -> Any:
        return _made(cls, rules, k=max(len(rules), 1))

    def __init__(self, *rules: BaseRule) -> None:
        super().__init__(max(len(rules), 1), *rules)


@dataclass(frozen=True, init=False)
class Not(_Combined):
    """Stops where the rule continues, continues where it stops or pauses.

    Never stops before the rule has seen a report that it could judge.
    """

    def __new__(cls, *rules: BaseRule) -> Any:
        return _made(cls, rules)

    def __init__(self, rule: BaseRule) -> None:
        self._set((rule,))

    def _combine(self, now: float | None, decided: list[Decision]) -> Decision:
        return opposite(self.name, decided)


@dataclass(frozen=True, init=False)
class After(_Combined):
    """The rule sees and counts everything, and decides on reports at `step` or later."""

    step: float = 0.0

    def __new__(cls, step: float = 0.0, *rules: BaseRule) -> Any:
        return _made(cls, rules, step=step)

    def __init__(self, step: float, rule: BaseRule) -> None:
        self._set((rule,))
        require_number("After step", step, at_least=0)
        object.__setattr__(self, "step", step)

    def _combine(self, now: float | None, decided: list[Decision]) -> Decision:
        return not_before(self.name, self.step, now, decided)


def check_count(name: str, k: int, rules: tuple[Any, ...]) -> None:
    """Raise unless `k` of the rules can ask for something."""
    require_number(f"{name} k", k, at_least=1, integer=True)
    require(k <= len(rules), f"AtLeast needs k <= the number of rules, {len(rules)}, got {k}.")


def _made(cls: type[_Combined], rules: tuple[BaseRule, ...], **more: Any) -> Any:
    """An empty `cls`, for its `__init__` to fill; or the combination across trials, in full."""
    if any(isinstance(rule, SweepRule) for rule in rules):
        return SweepCombination(combinator=cls.__name__, children=rules, **more)
    return object.__new__(cls)


NOTHING_TO_JUDGE = "nothing to judge yet"


@dataclass(frozen=True, kw_only=True)
class SweepCombination(SweepRule[list[Any]]):
    """Rules side by side of which at least one looks across trials.

    A child for one trial keeps its state of every trial (`PerTrial`). The record is the list of
    the children's records.

    Args:
        combinator: "AnyOf", "AllOf", "AtLeast", "Not" or "After": how the decisions combine.
        children: rules of either kind.
        k: of `AtLeast`.
        step: of `After`.
    """

    combinator: str
    children: tuple[BaseRule, ...]
    k: int = 1
    step: float = 0.0

    def __post_init__(self) -> None:
        check_children(self.combinator, self.children)
        if self.combinator in ("Not", "After"):
            require(
                len(self.children) == 1,
                f"{self.combinator} takes one rule, got {len(self.children)}.",
            )
        else:
            check_count(self.combinator, self.k, self.children)
        require_number("After step", self.step, at_least=0)
        parts = tuple(PerTrial(c) if isinstance(c, Rule) else c for c in self.children)
        object.__setattr__(self, "parts", parts)
        needed = next((child.scheduler for child in self.children if child.scheduler), "")
        object.__setattr__(self, "scheduler", needed)  # it pauses or rolls back all the same

    @property
    def name(self) -> str:
        """The combinator's."""
        return self.combinator

    @property
    def reads(self) -> tuple[str, ...]:
        """What any child reads."""
        return _merged(child.reads for child in self.children)

    @property
    def needs_objective(self) -> bool:
        """Whether any child does."""
        return any(child.needs_objective for child in self.children)

    @property
    def other_objectives(self) -> tuple[str, ...]:
        """Those in any child."""
        return _merged(child.other_objectives for child in self.children)

    @property
    def optional_metrics(self) -> tuple[str, ...]:
        """Those in any child."""
        return _merged(child.optional_metrics for child in self.children)

    @property
    def signature(self) -> str:
        """The combinator, and the children's signatures."""
        members = ", ".join(str(child.signature) for child in self.children)
        return f"{self.combinator}({members}) k={self.k} step={self.step}"

    def with_policy(self, on_nonfinite: OnNonfinite) -> Self:
        """The same combination of children under another policy."""
        changed = tuple(child.with_policy(on_nonfinite) for child in self.children)
        return replace(self, children=changed)

    def init(self) -> list[Any]:
        """The children's records before the first report."""
        return [part.init() for part in self.parts]

    def update(
        self,
        record: list[Any],
        report: Report,
        *,
        checkpoint: str | None = None,
        since_restore: int | None = None,
    ) -> Decision:
        """Show the report to every child that it concerns, and combine what they decide."""
        decided = [
            part.update(own, report, checkpoint=checkpoint, since_restore=since_restore)
            if part.judges(report)
            else part.keep(NOTHING_TO_JUDGE)
            for part, own in zip(self.parts, record, strict=True)
        ]
        if self.combinator == "Not":
            return opposite(self.name, decided)
        if self.combinator == "After":
            return not_before(self.name, self.step, report.step, decided)
        return at_least(self.name, self.k, decided)

    def judges(self, report: Report) -> bool:
        """Whether any child does."""
        return any(part.judges(report) for part in self.parts)

    def ended(self, record: list[Any], report: Report) -> None:
        """Tell the children; one to whom the report says nothing hears of an unjudged end."""
        for part, own in zip(self.parts, record, strict=True):
            if part.judges(report):
                part.ended(own, report)
            else:
                part.unjudged(own, report.trial_id, report.step)

    def finished(self, record: list[Any], trial_id: str) -> None:
        """Tell the children."""
        for part, own in zip(self.parts, record, strict=True):
            part.finished(own, trial_id)

    def unjudged(self, record: list[Any], trial_id: str, step: float | None) -> None:
        """Tell the children."""
        for part, own in zip(self.parts, record, strict=True):
            part.unjudged(own, trial_id, step)

    def lost(self, record: list[Any], trial_id: str) -> None:
        """Tell the children."""
        for part, own in zip(self.parts, record, strict=True):
            part.lost(own, trial_id)

    def forget(self, record: list[Any], trial_ids: Iterable[str]) -> None:
        """Tell the children."""
        gone = list(trial_ids)
        for part, own in zip(self.parts, record, strict=True):
            part.forget(own, gone)

    def note(
        self, record: list[Any], trial_id: str, event: str, numbers: Mapping[str, Any]
    ) -> None:
        """Tell the children."""
        for part, own in zip(self.parts, record, strict=True):
            part.note(own, trial_id, event, numbers)

    def dump(self, record: list[Any]) -> list[Any]:
        """Each child's record as JSON data."""
        return [part.dump(own) for part, own in zip(self.parts, record, strict=True)]

    def freeze(self, record: list[Any]) -> Callable[[], list[Any]]:
        """As `dump`, later."""
        frozen = [part.freeze(own) for part, own in zip(self.parts, record, strict=True)]
        return lambda: [each() for each in frozen]

    def load(self, data: list[Any]) -> list[Any]:
        """The record that `dump` wrote."""
        return [part.load(each) for part, each in zip(self.parts, data, strict=True)]

    parts: tuple[SweepRule[Any], ...] = field(init=False, repr=False, compare=False)
