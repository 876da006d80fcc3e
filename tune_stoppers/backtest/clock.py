"""Virtual time: a clock and the events that wait for it."""

from __future__ import annotations

import heapq
import itertools
from typing import Generic, TypeVar

E = TypeVar("E")


class StalledError(RuntimeError):
    """Nothing runs and nothing starts: in Ray this sweep would hang."""


class Clock(Generic[E]):
    """Events come in order of time, then of priority (lower first), then of entry."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, int, E]] = []
        self._serial = itertools.count()

    def push(self, delay: float, priority: int, event: E) -> None:
        heapq.heappush(self._heap, (self.now + delay, priority, next(self._serial), event))

    def peek(self) -> tuple[float, E] | None:
        """The next event and its time; None if there is none."""
        if not self._heap:
            return None
        time, _, _, event = self._heap[0]
        return time, event

    def pop(self) -> None:
        """Drop the next event, without moving the clock."""
        heapq.heappop(self._heap)
