"""Decisions told to whoever listens in this process, at the report that they are about."""

import math
import weakref
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
    """The finite numbers that were compared, in the metric's own units, as `Owner/Rule/best`.

    A combination of rules has the numbers of those that were asked.
    """
    return dict(_numbers(verdict.owner, verdict.decision, verdict.sign))


def _numbers(owner: str, decision: Decision, sign: int) -> Iterator[tuple[str, float]]:
    losses = _losses(decision.text) if sign < 0 else frozenset()
    for name, given in decision.numbers.items():
        value = number(given)
        if value is not None and math.isfinite(value):
            yield f"{owner}/{decision.rule}/{name}", sign * value if name in losses else value
    for part in decision.parts:
        yield from _numbers(owner, part, sign)


def _losses(text: str) -> frozenset[str]:
    """The numbers that a decision's text marks as losses: `{best:loss}`."""
    return frozenset(
        name for _, name, spec, _ in Formatter().parse(text) if name and spec == "loss"
    )
