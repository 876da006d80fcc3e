"""What the contract kit says of a rule that is not complete: what is missing, and what to type."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tune_stoppers.core import BaseRule, Decision, Report, Rule, SweepRule
from tune_stoppers.testing import check_rule

CURVE = [Report("t", step, 1.0 / step) for step in range(1, 6)]


@dataclass(frozen=True)
class Third(Rule):
    """Stops at the third report; each rule below lacks one thing."""

    def start(self) -> Any:
        return 0

    def observe(self, own: Any, report: Report) -> Any:
        return own + 1

    def decide(self, own: Any) -> Decision:
        return (self.stop if own >= 3 else self.keep)("{count} of 3", count=own)


class Undecorated(Third):
    count: int = 3


class ReturnsNothing(Third):
    def decide(self, own: Any) -> Decision:  # type: ignore[return]
        self.keep("{count} of 3", count=own)


class ForgetsToReturn(Third):
    def observe(self, own: Any, report: Report) -> Any:
        own = own + 1


class NoNumber(Third):
    def decide(self, own: Any) -> Decision:
        return self.keep("{count} of 3")  # no number given: the text is left as it is


class OtherNumber(Third):
    def decide(self, own: Any) -> Decision:
        return self.keep("{count} of 3", seen=own)


class Listed(Third):
    def start(self) -> Any:
        return []

    def observe(self, own: Any, report: Report) -> Any:
        return [*own, report.loss]

    def decide(self, own: Any) -> Decision:
        return self.keep("{count} of 3", count=len(own))


class Rounded(Third):
    def load(self, data: Any) -> Any:
        return super().load(data)._replace(own=0)


@dataclass(frozen=True)
class Best(SweepRule[dict[str, float]]):
    """Across trials: sound, but for what the rules below break."""

    def init(self) -> dict[str, float]:
        return {}

    def update(self, record: dict[str, float], report: Report, **of_checkpoints: Any) -> Decision:
        record[report.trial_id] = report.step
        return self.keep("{count} trials", count=len(record))

    def ended(self, record: dict[str, float], report: Report) -> None: ...

    def lost(self, record: dict[str, float], trial_id: str) -> None: ...

    def forget(self, record: dict[str, float], trial_ids: Iterable[str]) -> None:
        for trial_id in trial_ids:
            record.pop(trial_id, None)

    def dump(self, record: dict[str, float]) -> Any:
        return dict(record)

    def load(self, data: Any) -> dict[str, float]:
        return dict(data)


@dataclass
class Changeable(SweepRule[dict[str, float]]):
    init, update, ended, lost = Best.init, Best.update, Best.ended, Best.lost  # type: ignore
    forget, dump, load = Best.forget, Best.dump, Best.load  # type: ignore


class Plain(SweepRule[dict[str, float]]):
    init, update, ended, lost = Best.init, Best.update, Best.ended, Best.lost  # type: ignore
    forget, dump, load = Best.forget, Best.dump, Best.load  # type: ignore


class SetDumped(Best):
    def dump(self, record: dict[str, float]) -> Any:
        return set(record)


class Remembers(Best):
    def forget(self, record: dict[str, float], trial_ids: Iterable[str]) -> None: ...


class Lossy(Best):
    def load(self, data: Any) -> dict[str, float]:
        return {}


@dataclass(frozen=True)
class Holds(Third):
    """Remembers in itself, not in its state."""

    calls: list[int] = field(default_factory=list)

    def decide(self, own: Any) -> Decision:
        self.calls.append(own)
        return self.keep("{count} calls", count=len(self.calls))


def hidden() -> Rule:
    class Hidden(Third):
        pass

    return Hidden()


@pytest.mark.parametrize("rule", [Third(), Best()])
def test_a_complete_rule_passes(rule: BaseRule) -> None:
    """The base of each of the broken ones."""
    check_rule(rule, CURVE)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Undecorated(), r"Undecorated is no dataclass: put @dataclass\(frozen=True\) above"),
        (Plain(), r"Plain is no dataclass: put @dataclass\(frozen=True\) above"),
        (Changeable(), r"Changeable can be changed .* use @dataclass\(frozen=True\)"),
        (hidden(), "Hidden is not found in .*test_testing by its name.* top of the module"),
        (ReturnsNothing(), r"None is no decision; return self\.keep\(…\) or self\.stop\(…\)"),
        (ForgetsToReturn(), "observe returned None, not the rule's next state"),
        (NoNumber(), r"the reason is not filled in: '\{count\} of 3'"),
        (OtherNumber(), "cannot be filled in .*'count'.*give each number that the text names"),
        (
            Listed(),
            r"the state \[.*does not come back from JSON.*numbers, strings, None and tuples",
        ),
        (Rounded(), "the reloaded state: expected .*'own': 1.*, got .*'own': 0"),
        (Holds(), "expected .*, got"),
        (SetDumped(), "its dump is no JSON data: .*set"),
        (Lossy(), "the reloaded record: expected .*, got|record reloaded from JSON: expected"),
        (Remembers(), "the forgotten trial is still remembered"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseRule) else "",
)
def test_what_a_rule_lacks_is_named(rule: BaseRule, said: str) -> None:
    """With the rule's name, and where one thing is to be typed, that."""
    with pytest.raises(AssertionError, match=said) as raised:
        check_rule(rule, [*CURVE, Report("u", 1, 0.5)])
    assert type(rule).__name__ in str(raised.value)


def test_a_class_in_place_of_a_rule_is_named() -> None:
    """An easy slip."""
    with pytest.raises(TypeError, match=r"got its class; make one: Third\(…\)"):
        check_rule(Third, CURVE)  # type: ignore[arg-type]
