"""One run of a trial's training process, played back from its recorded curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from ray.tune.utils import flatten_dict

from tune_stoppers.backtest.trial import CheckpointResult, ReplayCheckpoint, ReplayTrial, nest
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.recorded.table import Curve, Rows


@dataclass(frozen=True)
class Costs:
    """Worker time in the unit of the clock: reports, or seconds where those were recorded.

    `start`: each start of a trial's process. `save`: each checkpoint. `load`: each restore.
    `resume`: every later start of a trial, instead of `start + load`, if given.
    """

    unit: Literal["reports", "seconds"] = "reports"
    start: float = 0.0
    save: float = 0.0
    load: float = 0.0
    resume: float | None = None

    def start_of(self, *, again: bool) -> float:
        return self.resume if again and self.resume is not None else self.start

    def of(self, curve: Curve) -> list[float]:
        """What each report of the curve costs."""
        if self.unit == "reports":
            return [1.0] * len(curve)
        durations: list[float] = curve.durations().tolist()
        return durations


def require_times(sweep: Sweep) -> None:
    """ValueError where nothing is known of what its reports took."""
    if not sweep.has_times:
        raise ValueError(f"sweep {sweep.name!r} has no time_total_s; use cost='reports'.")
    if not any(curve.durations().any() for curve in sweep):
        raise ValueError(f"all times of sweep {sweep.name!r} are 0 s; use cost='reports'.")


@dataclass(frozen=True)
class Faults:
    """Chance, per report, that a trial's process dies before it. Drawn per trial from `seed`, so
    that every rule meets the same faults. A preemption does not count against `max_failures`."""

    failure_rate: float = 0.0
    preemption_rate: float = 0.0
    max_failures: int = 0
    seed: int = 0

    def dice(self, trials: int) -> list[Dice]:
        """One die per trial; none if nothing can go wrong."""
        if not self.failure_rate and not self.preemption_rate:
            return []
        return [Dice(self, index) for index in range(trials)]


class Fault(NamedTuple):
    """That a trial's process dies before a report is made."""

    share: float  # of the report's cost that is spent before the process dies
    preempted: bool


class Dice:
    """Rolled once per attempted report of one trial."""

    def __init__(self, faults: Faults, index: int) -> None:
        self._faults = faults
        self._random = np.random.default_rng([faults.seed, index])

    def roll(self) -> Fault | None:
        fails, preempts, share = self._random.random(3).tolist()
        if fails < self._faults.failure_rate:
            return Fault(share, preempted=False)
        if preempts < self._faults.preemption_rate:
            return Fault(share, preempted=True)
        return None


class Process:
    """A trial's worker process, from the request for a worker to its end.

    It reports what was recorded, with the keys that Ray adds, and comes with a checkpoint at every
    `checkpoint_every`-th iteration (0: never).
    """

    __slots__ = (
        "checkpoint",
        "checkpoint_every",
        "checkpoint_index",
        "costs",
        "elapsed",
        "flat",
        "folder",
        "metrics",
        "nested",
        "reports",
        "row",
        "rows",
        "save_cost",
        "saves_queued",
        "slashes",
        "started",
        "training",
        "trial",
    )

    def __init__(self, trial: ReplayTrial, costs: Costs, checkpoint_every: int) -> None:
        self.trial = trial
        self.started: float | None = None  # when it got its worker
        self.row = 0  # next row to report
        self.reports = 0  # since it started
        self.elapsed = 0.0  # seconds of training since it started
        self.checkpoint_every = checkpoint_every
        self.checkpoint_index = trial.checkpoint_index
        self.checkpoint: ReplayCheckpoint | None = None  # that came with its last report
        self.metrics: dict[str, Any] = {}  # its last report
        self.training = False  # a report is under way
        self.saves_queued = 0  # asked for while a report was under way
        self.save_cost = costs.save

    def load(self, costs: Costs) -> None:
        """Fetch the recorded curve, once the process has its worker."""
        trial = self.trial
        self.rows = Rows(trial.curve)
        self.costs = costs.of(trial.curve)
        self.folder = trial.path or str(trial)
        self.slashes = any("/" in name for name in trial.curve.metrics)
        identity = {"trial_id": trial.trial_id, "done": False, "pid": 0, "hostname": "replay"}
        self.nested = identity | {"node_ip": "127.0.0.1", "config": trial.config}
        self.flat: dict[str, Any] = flatten_dict(self.nested)

    def resume_after(self, iteration: int) -> None:
        self.row = int(np.searchsorted(self.trial.curve.iterations, iteration, side="right"))

    @property
    def at_end(self) -> bool:
        return self.row == len(self.rows)

    @property
    def saves(self) -> bool:
        """Whether the next report comes with a checkpoint."""
        every = self.checkpoint_every
        return every > 0 and self.rows.iterations[self.row] % every == 0

    @property
    def cost(self) -> float:
        """Time until the next report."""
        return self.costs[self.row] + (self.save_cost if self.saves else 0.0)

    def report(self, now: float) -> tuple[dict[str, Any], dict[str, Any]]:
        """The next result, nested as stoppers get it and flat as schedulers do."""
        row = self.rows[self.row]
        self.reports += 1
        self.elapsed += row["time_this_iter_s"]
        added: dict[str, Any] = {
            "iterations_since_restore": self.reports,
            "time_since_restore": self.elapsed,
            "timestamp": int(now),
            "checkpoint_dir_name": None,
        }
        self.checkpoint = None
        if self.saves:
            self.checkpoint_index += 1
            name = f"checkpoint_{self.checkpoint_index:06d}"
            added["checkpoint_dir_name"] = name
            added["should_checkpoint"] = True
            self.checkpoint = ReplayCheckpoint(f"{self.folder}/{name}")
        self.metrics = {**self.nested, **(nest(row) if self.slashes else row), **added}
        self.row += 1
        return self.metrics, {**self.flat, **row, **added}

    def saved(self) -> CheckpointResult | None:
        """What a request to save hands back: the checkpoint of the last report, if it had one."""
        if self.checkpoint is None:
            return None
        return CheckpointResult(self.checkpoint, self.metrics)
