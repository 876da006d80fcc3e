"""A rung: the losses that trials had when they came to it. And where the rungs of a sweep are."""

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tune_stoppers.core import require, require_number

FIRST_SHARE = 0.04  # of the horizon: the first rung, where none is given
MOST_RUNGS = 1_000
Times = tuple[float, ...]  # rungs, in units of the time


@dataclass
class Rung:
    """The losses recorded at one rung, one a trial, sorted: O(log n) to find, to add, to rank."""

    window: int | None
    of_trial: dict[str, float] = field(default_factory=dict)  # oldest first
    losses: list[float] = field(init=False, compare=False)  # sorted; not written, made anew

    def __post_init__(self) -> None:
        self.losses = sorted(self.of_trial.values())

    def record(self, trial_id: str, loss: float) -> None:
        """Add the trial's loss; a trial that is here already has its entry replaced."""
        if trial_id in self.of_trial:
            self._remove(trial_id)
        insort(self.losses, loss)
        self.of_trial[trial_id] = loss
        if self.window is not None and len(self.of_trial) > self.window:
            self._remove(next(iter(self.of_trial)))

    def drop(self, trial_id: str) -> None:
        """Remove the trial's entry, if it has one."""
        if trial_id in self.of_trial:
            self._remove(trial_id)

    def _remove(self, trial_id: str) -> None:
        del self.losses[bisect_left(self.losses, self.of_trial.pop(trial_id))]

    def rank(self, loss: float) -> int:
        """1 + the number of strictly better losses: ties are in the trial's favour."""
        return 1 + bisect_left(self.losses, loss)

    @property
    def median(self) -> float:
        """The lower median of the losses; there must be some."""
        return self.losses[(len(self.losses) - 1) // 2]


def rungs_of(max_t: float, grace_period: float | None, factor: float) -> tuple[Times, Times]:
    """Rungs grace·factor^k < `max_t`, by repeated multiplication: for whole steps, and for others.

    They differ where no first rung is given: it is 4 % of `max_t`, and rounded up where time comes
    in whole steps. If that leaves no rung at all, both are as for others.
    """
    require_number("max_t", max_t, above=0)
    require_number("reduction_factor", factor, above=1)
    if grace_period is None:
        share = FIRST_SHARE * max_t
        fine = _multiples(share, factor, max_t)
        return _multiples(math.ceil(share - 1e-9), factor, max_t) or fine, fine
    require_number("grace_period", grace_period, above=0)
    require(
        grace_period <= max_t,
        f"grace_period must be <= max_t = {max_t}, got {grace_period}.",
    )
    given = _multiples(grace_period, factor, max_t)
    return given, given


def _multiples(first: float, factor: float, max_t: float) -> Times:
    found: list[float] = []
    rung = first
    while rung < max_t:
        require(
            len(found) < MOST_RUNGS,
            f"reduction_factor {factor!r} makes more than {MOST_RUNGS} rungs between {first!r} "
            f"and {max_t!r}; give a larger one.",
        )
        found.append(rung)
        rung *= factor
    return tuple(found)


def moved(
    rungs: Sequence[Rung],
    times: Times,
    onto: Times,
    window: int | None,
    trials: Iterable[tuple[str, float, float]],
) -> list[Rung]:
    """The losses at the rungs `times`, brought to the rungs `onto`.

    `trials` are ids, times and newest losses. At each rung that a trial has passed it gets its loss
    at the first old rung from there on, else its newest. One that counts as worst at its next rung
    does so still.
    """
    made = [Rung(window) for _ in onto]
    for trial_id, time, newest in trials:
        known = [
            (at, rung.of_trial[trial_id])
            for at, rung in zip(times, rungs, strict=True)
            if trial_id in rung.of_trial
        ]
        passed = bisect_right(onto, time)
        for index in range(passed):
            there = next((loss for at, loss in known if at >= onto[index]), newest)
            made[index].record(trial_id, there)
        if passed < len(onto) and any(at > time and loss == math.inf for at, loss in known):
            made[passed].record(trial_id, math.inf)
    return made
