"""Time spent, as an adapter counts it for `rules.Budget`."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from tune_stoppers.rules.trial.budget import (
    SWEEP_ACTIVE_SECONDS,
    SWEEP_SECONDS,
    TRIAL_ACTIVE_SECONDS,
)

TOTALS = frozenset({TRIAL_ACTIVE_SECONDS, SWEEP_SECONDS, SWEEP_ACTIVE_SECONDS})


class Spending:
    """Active seconds of each trial and of all, and the seconds since the first question.

    Nothing is ever given back. A pickled copy continues from the seconds that had passed when it
    was made, however much later it is loaded: downtime is free.

    Args:
        clock: seconds that never run backwards, from any zero.
        elapsed: seconds that had passed before, where another way than a pickle kept them.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, *, elapsed: float = 0.0
    ) -> None:
        self._clock = clock
        self._active: defaultdict[str, float] = defaultdict(float)  # seconds, per trial
        self._active_of_all = 0.0  # seconds
        self._before = elapsed  # seconds, before `_since`
        self._since: float | None = None  # by the clock; None: it does not run

    def add(self, trial_id: str, seconds: float) -> None:
        """Count work of a trial; a negative time (its clock was set back) is none."""
        self._active[trial_id] += max(seconds, 0.0)
        self._active_of_all += max(seconds, 0.0)

    def elapsed(self) -> float:
        """Seconds since this was first asked: that question starts the clock."""
        if self._since is None:
            self._since = self._clock()
        return self._passed()

    def totals(self, trial_id: str) -> dict[str, float]:
        """What `rules.Budget` reads in a report of this trial."""
        return {
            TRIAL_ACTIVE_SECONDS: self._active.get(trial_id, 0.0),
            SWEEP_SECONDS: self.elapsed(),
            SWEEP_ACTIVE_SECONDS: self._active_of_all,
        }

    def use(self, clock: Callable[[], float]) -> None:
        """Go on by another clock: a replay has its own time."""
        self._before, self._since, self._clock = self._passed(), None, clock

    def _passed(self) -> float:
        running = 0.0 if self._since is None else self._clock() - self._since
        return self._before + running

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_before": self._passed(), "_since": None}
