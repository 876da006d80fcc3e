"""Decisions told to whoever listens in this process, at the report that they are about."""

import math
import weakref
from collections import Counter
from collections.abc import Iterator
from string import Formatter
from typing import NamedTuple, Protocol

from tune_stoppers.core import Decision
from tune_stoppers.metrics import number


class Verdict(NamedTuple):
    """A decision, and who took it."""

    trial_id: str
    owner: str  # the stopper or scheduler
    decision: Decision
    sign: int  # -1 where the metric is maximised
    step: float
    dry_run: bool = False
    early: bool = False  # before `start_after`
    paused: bool = False  # the trial was: one without a checkpoint is not


class Listener(Protocol):
    """Whoever wants to hear of decisions."""

    def hear(self, verdict: Verdict) -> None:
        """A trial's report has been judged; Ray's callbacks are called with it next."""


_listeners: "weakref.WeakSet[Listener]" = weakref.WeakSet()


def listen(listener: Listener) -> None:
    """Tell `listener` every decision from now on, as long as it lives."""
    _listeners.add(listener)


def announce(verdict: Verdict) -> None:
    """Tell those that listen."""
    for listener in list(_listeners):
        listener.hear(verdict)


def metrics_of(verdict: Verdict) -> dict[str, float]:
    """The finite numbers that were compared, in the metrics' own units, as `Owner/Rule/best`.

    A combination of rules has the numbers of those that were asked; a second rule of the same
    kind is `Owner/Rule 2/best`.
    """
    found: dict[str, float] = {}
    seen: Counter[str] = Counter()
    for decision in _single(verdict.decision):
        seen[decision.rule] += 1
        count = seen[decision.rule]
        path = f"{verdict.owner}/{decision.rule}" + (f" {count}" if count > 1 else "")
        sign = verdict.sign if decision.sign is None else decision.sign
        losses = _losses(decision) if sign < 0 else frozenset()
        for name, given in decision.numbers.items():
            value = number(given)
            if value is not None and math.isfinite(value):
                found[f"{path}/{name}"] = sign * value if name in losses else value
    return found


def _single(decision: Decision) -> Iterator[Decision]:
    """The decisions of single rules in it."""
    if not decision.parts:
        yield decision
    for part in decision.parts:
        yield from _single(part)


def _losses(decision: Decision) -> frozenset[str]:
    """The numbers that a decision's text marks as losses: `{best:loss}`."""
    if not decision.numbers:  # the text is no format then
        return frozenset()
    parsed = Formatter().parse(decision.text)
    return frozenset(name for _, name, spec, _ in parsed if name and spec == "loss")
