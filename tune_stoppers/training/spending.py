"""Time spent, as an adapter counts it for `rules.Budget`."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from tune_stoppers.metrics import Reads
from tune_stoppers.rules.trial.budget import (
    SWEEP_ACTIVE_SECONDS,
    SWEEP_KWH,
    SWEEP_SECONDS,
    TRIAL_ACTIVE_SECONDS,
)
from tune_stoppers.training.energy import JOULES_PER_KWH, EnergyMeter

TOTALS = frozenset({TRIAL_ACTIVE_SECONDS, SWEEP_SECONDS, SWEEP_ACTIVE_SECONDS, SWEEP_KWH})


class Spending:
    """Active seconds of each trial and of all, and the seconds since the first question.

    Nothing is ever given back. A pickled copy continues from the seconds that had passed when it
    was made, and the energy used, however much later it is loaded: downtime is free.

    Args:
        clock: seconds that never run backwards, from any zero.
        elapsed: seconds that had passed before, where another way than a pickle kept them.
        metered: whether energy is counted too, of this machine; `ValueError` if it cannot be.
        kwh: energy that had been used before.
    """

    _metered = False  # nor was it in what an earlier version pickled
    _joules_before = 0.0
    _meter: EnergyMeter | None = None

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        elapsed: float = 0.0,
        metered: bool = False,
        kwh: float = 0.0,
    ) -> None:
        if metered:
            EnergyMeter()  # an error now, not in mid-sweep
        self._metered, self._joules_before, self._meter = metered, kwh * JOULES_PER_KWH, None
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

    def kwh(self) -> float:
        """Energy used since this was first asked, which starts the meter; and before."""
        return self._joules() / JOULES_PER_KWH

    def _joules(self) -> float:
        if self._meter is None:
            self._meter = EnergyMeter()
        return self._joules_before + self._meter.joules()

    def totals(self, trial_id: str) -> dict[str, float]:
        """What `rules.Budget` reads in a report of this trial."""
        return {
            TRIAL_ACTIVE_SECONDS: self._active.get(trial_id, 0.0),
            SWEEP_SECONDS: self.elapsed(),
            SWEEP_ACTIVE_SECONDS: self._active_of_all,
            **({SWEEP_KWH: self.kwh()} if self._metered else {}),
        }

    def totals_of_run(self) -> dict[str, float]:
        """The same of one run, which is all its own sweep, and works all the time."""
        names = (TRIAL_ACTIVE_SECONDS, SWEEP_SECONDS, SWEEP_ACTIVE_SECONDS)
        energy = {SWEEP_KWH: self.kwh()} if self._metered else {}
        return dict.fromkeys(names, self.elapsed()) | energy

    def use(self, clock: Callable[[], float]) -> None:
        """Go on by another clock: a replay has its own time.

        `ValueError` where energy is counted: no recording has it.
        """
        if self._metered:
            raise ValueError("A replay knows no energy: leave the budget of kwh out.")
        self._before, self._since, self._clock = self._passed(), None, clock

    def _passed(self) -> float:
        running = 0.0 if self._since is None else self._clock() - self._since
        return self._before + running

    def __getstate__(self) -> dict[str, Any]:
        passed = {"_before": self._passed(), "_since": None, "_meter": None}
        if self._metered:
            passed["_joules_before"] = self._joules()
        return self.__dict__ | passed


def reads_energy(rule: Reads) -> bool:
    """Whether the rule has a budget of energy."""
    return SWEEP_KWH in rule.reads


def spending_of_run(rule: Reads, before: Mapping[str, Any]) -> Spending:
    """What one run spends from now on; `before`: the `seconds` and `kwh` of its earlier part."""
    spending = Spending(
        elapsed=before.get("seconds", 0.0),
        metered=reads_energy(rule),
        kwh=before.get("kwh", 0.0),
    )
    spending.totals_of_run()  # clock and meter run from here
    return spending
