"""What earlier sweeps expected of the trials, as schedulers wrote it down, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from tune_stoppers.journal.lines import STARTED, Line
from tune_stoppers.metrics import number

FEWEST = 4  # trials of which it is said how far they agree


@dataclass(frozen=True)
class EarlierSweeps:
    """What the journal says of a scheduler's `history`.

    Attributes:
        said: what was read, and how it was matched.
        came_true: by earlier sweep, how much of what it expected came true: 0 nothing, 1 all.
        after: how many trials had reported by then.
        expected: by trial id, its standing as it was expected; lower is better.
    """

    said: tuple[str, ...]
    came_true: Mapping[str, float]
    after: int
    expected: Mapping[str, float]

    def sentences(self) -> Iterator[str]:
        """What was read, and how much of it came true."""
        yield from (f"history: {line}" for line in self.said)
        if self.came_true:
            told = ", ".join(f"{value:.2f} of {name}" for name, value in self.came_true.items())
            yield (
                f"history: of what was expected, came true by the time {self.after} trials had "
                f"reported (0: nothing, 1: all): {told}."
            )

    def agreement(self, outcomes: Mapping[str, float]) -> float:
        """The rank correlation of what was expected with the trials' best losses; NaN of few."""
        both = [t for t in self.expected if math.isfinite(outcomes.get(t, math.nan))]
        if len(both) < FEWEST:
            return math.nan
        one, other = (_ranks([of[t] for t in both]) for of in (self.expected, outcomes))
        if not one.std() or not other.std():
            return math.nan
        return float(np.corrcoef(one, other)[0, 1])


def earlier_of(lines: Iterable[Line]) -> EarlierSweeps | None:
    """The newest word of the journal on each; None where no scheduler had a history."""
    said: tuple[str, ...] = ()
    came_true: dict[str, float] = {}
    after, expected = 0, {}
    for line in lines:
        numbers = line.get("numbers")
        if line.get("event") != STARTED or not isinstance(numbers, dict):
            continue
        value = number(numbers.get("expected"))
        if value is not None and math.isfinite(value):
            expected[str(line.get("trial"))] = value
        if isinstance(numbers.get("history"), list):
            said = tuple(map(str, numbers["history"]))
        told = numbers.get("came_true")
        if isinstance(told, dict) and isinstance(told.get("of"), dict):
            found = {str(name): number(value) for name, value in told["of"].items()}
            came_true = {name: value for name, value in found.items() if value is not None}
            after = int(number(told.get("after")) or 0)
    return EarlierSweeps(said, came_true, after, expected) if expected else None


def _ranks(values: list[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    known = np.array(values)
    below = (known[None] < known[:, None]).sum(axis=1)
    return np.asarray(below + 0.5 * (known[None] == known[:, None]).sum(axis=1), dtype=np.float64)
