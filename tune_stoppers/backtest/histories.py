"""Earlier sweeps in a replay: who takes them, and never the sweep that is replayed."""

from collections.abc import Container
from typing import Any

from tune_stoppers.history import History
from tune_stoppers.tune.schedulers.expectations import WithHistory

ITSELF = "it is the sweep that is replayed"


def take(scheduler: Any, history: History) -> bool:
    """Give a scheduler that was just constructed this history; whether it could make use of it.

    One that has a history keeps its own.
    """
    fits = isinstance(scheduler, WithHistory) and scheduler.takes_history
    if not fits or scheduler.history is not None:
        return False
    scheduler.begin_with(history)
    return True


def leave_out(scheduler: Any, contents: Container[str]) -> tuple[str, ...]:
    """Let a scheduler know nothing of sweeps of these contents; what is to be said of that."""
    history = scheduler.history if isinstance(scheduler, WithHistory) else None
    if history is None:
        return ()
    fewer = history.without(contents, ITSELF)
    if fewer is history:
        return ()
    scheduler.begin_with(fewer)
    return fewer.said[len(history.said) :]
