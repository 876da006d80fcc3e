"""Decisions and numbers of a dumped record, which went through JSON."""

from typing import Any

from tune_stoppers.core import Action, Decision


def dump_decision(decision: Decision | None) -> list[Any] | None:
    """A decision on a course, as JSON data."""
    if decision is None:
        return None
    return [decision.action.value, decision.text, dict(decision.numbers)]


def load_decision(said: list[Any] | None, name: str) -> Decision | None:
    """The decision of the rule `name` that `dump_decision` wrote."""
    if said is None:
        return None
    action, text, numbers = said
    not_finite = ("inf", "-inf", "nan")  # JSON lacks them: they may have come back as strings
    known = {key: float(v) if v in not_finite else v for key, v in numbers.items()}
    return Decision(Action(action), text, name, known)


def as_number(value: float | str) -> float:
    """A number of a dumped record: those that JSON lacks may have come back as strings."""
    return float(value) if isinstance(value, str) else value
