"""Run a recorded sweep again under any Ray scheduler and stopper, in virtual time.

Over 350 lines by the docstrings of `replay` and `ReplayResult`, which are their reference.
"""

from __future__ import annotations

import copy
import math
import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher, SearchGenerator
from ray.tune.stopper import Stopper

from tune_stoppers.backtest.clock import StalledError
from tune_stoppers.backtest.cluster import Cluster
from tune_stoppers.backtest.histories import leave_out
from tune_stoppers.backtest.process import Costs, Faults, require_times
from tune_stoppers.backtest.searching import prepared
from tune_stoppers.backtest.trial import Entry
from tune_stoppers.history.sources import contents_of
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.recorded.table import Curve
from tune_stoppers.tune.horizon_watch import notes_of
from tune_stoppers.tune.schedulers.base import SweepScheduler
from tune_stoppers.tune.stoppers.base import RuleStopper
from tune_stoppers.tune.stoppers.budget import use_clock
from tune_stoppers.tune.stoppers.combinators import Stops, as_stopper, is_stop

BY_RULE = ("scheduler", "stopper", "stop_all")
RUNAWAY = 100  # times the reports of the whole sweep: something starts over and over


def replay(
    sweep: Sweep,
    scheduler: TrialScheduler | None = None,
    stopper: Stops | None = None,
    *,
    searcher: Searcher | SearchGenerator | None = None,
    workers: int = 8,
    seed: int = 0,
    order: Literal["shuffled", "recorded"] = "shuffled",
    metric: str | None = None,
    mode: str | None = None,
    cost: Literal["reports", "seconds"] = "reports",
    start_cost: float = 0.0,
    save_cost: float = 0.0,
    load_cost: float = 0.0,
    resume_cost: float | None = None,
    failure_rate: float = 0.0,
    preemption_rate: float = 0.0,
    max_failures: int = 0,
    checkpoint_every: int = 1,
    max_pending: int | None = None,
    budget: float | None = None,
    max_reports: int | None = None,
    on_stall: Literal["raise", "end"] = "raise",
    folder: str | os.PathLike[str] | None = None,
) -> ReplayResult:
    """What `scheduler` and `stopper` would have made of `sweep`.

    Both are deep-copied and then called exactly as Ray 2.60's controller calls them for function
    trainables, each report at the virtual time at which it is due and never earlier. `stopper` may
    be whatever Ray takes as `stop`: a dict of limits or a function, too. A trial that ends leaves
    its worker to the next one; the order of trials is drawn from `seed`, the same for every rule,
    or the recorded one.

    A searcher's suggestions stand for trials: the unused trial nearest to each suggestion
    (`Neighbours`) is run, and its reports are told as the suggestion's, as Ray's SearchGenerator
    does: each that does not end its trial, and the last one. The trials that it has not suggested
    stay PENDING. As under `max_concurrent_trials=workers`, it is asked when a trial ends and has at
    most `workers` unfinished, paused ones included; a `ConcurrencyLimiter` keeps its own limit, and
    a `SearchGenerator` has none and is asked one trial ahead. A searcher without a space gets
    `space_of(sweep)`, metric and mode; one without a seed may differ from run to run. If it
    suggests None, it is asked again after the next event; after "FINISHED", or when every trial is
    handed out, there are no more trials. The same suggestion again is the next nearest trial.

    A scheduler with a `history` in which this very sweep is, wherever it was read from, knows
    nothing of that one; `notes` of the result says so.

    A report without a metric that others have is no evidence, whatever `on_missing`; `reading` of
    the result says how many there are. Live, "raise" would end a sweep whose first report lacks the
    metric: give such a rule `on_missing="skip"`.

    Args:
        sweep: what was recorded.
        scheduler: a Ray `TrialScheduler`, ours or Ray's own; None: Ray's FIFO.
        stopper: a Ray `Stopper`, a dict of limits or a function; None: nothing stops a trial.
        searcher: any Ray searcher, in place of the order of the trials; see above.
        workers: trials that run at a time.
        seed: of the order of the trials, and of failures.
        order: "shuffled" by `seed`, or as "recorded".
        metric, mode: as in `TuneConfig`; default, the sweep's own. A scheduler built with its own
            keeps them.
        cost: what a report takes: 1 each ("reports"), or the recorded "seconds". The costs below,
            `budget` and every time in the result are in that unit.
        start_cost: of each start of a trial.
        save_cost: of each checkpoint.
        load_cost: of each restore.
        resume_cost: of each later start of a trial, instead of start and load.
        failure_rate, preemption_rate: the probability per report that the process dies before it.
            A preempted trial is always tried again, from its last checkpoint.
        max_failures: how often a failed trial is tried again; -1: always.
        checkpoint_every: a checkpoint with each report whose iteration is a multiple; 0: never,
            and then a trial that is paused starts from zero.
        max_pending: trials taken from the searcher ahead of time; None: as Ray does, 200 or 1.1 ×
            workers, 1 for an adaptive searcher.
        budget: the time at which the cluster closes.
        max_reports: the number of reports after which it does.
        on_stall: what to do where nothing runs and the scheduler starts nothing, so that Ray would
            wait for ever (its HyperBand does when trials end before their rung): "raise", or "end".
        folder: where a scheduler that writes its state may do so; None: trials have no storage.

    Raises ValueError and TypeError for unfit arguments, StalledError where the scheduler leaves
    every trial waiting or the searcher suggests nothing for ever, RuntimeError where the searcher
    fails or trials start over without end, and whatever the scheduler or stopper raises.
    """
    metric, direction = sweep.objective(metric, mode)
    _check(workers=workers, max_failures=max_failures, checkpoint_every=checkpoint_every)
    _check_costs(start_cost=start_cost, save_cost=save_cost, load_cost=load_cost)
    _check_costs(resume_cost=resume_cost, budget=budget, max_reports=max_reports)
    _check_rates(failure_rate=failure_rate, preemption_rate=preemption_rate)
    if on_stall not in ("raise", "end"):
        raise ValueError(f"on_stall must be 'raise' or 'end', got {on_stall!r}.")
    if cost not in ("reports", "seconds"):
        raise ValueError(f"cost must be 'reports' or 'seconds', got {cost!r}.")
    if cost == "seconds":
        require_times(sweep)
    if scheduler is not None and not isinstance(scheduler, TrialScheduler):
        raise TypeError(f"scheduler must be a Ray TrialScheduler, got {type(scheduler).__name__}.")
    if stopper is not None:
        if not is_stop(stopper):
            raise TypeError(f"stopper must be a Ray Stopper, got {type(stopper).__name__}.")
        stopper = as_stopper(stopper)

    costs = Costs(cost, start_cost, save_cost, load_cost, resume_cost)
    with _seeded(seed):
        scheduler = FIFOScheduler() if scheduler is None else copy.deepcopy(scheduler)
        stopper = copy.deepcopy(stopper)
        left_out = leave_out(scheduler, contents_of(sweep))
        _set_objective(scheduler, metric, direction)
        if searcher is not None:
            searcher = prepared(searcher, sweep, metric, direction, workers)
        cluster = Cluster(
            _ordered(sweep, order, seed),
            scheduler,
            stopper,
            workers=workers,
            costs=costs,
            faults=Faults(failure_rate, preemption_rate, max_failures, seed),
            checkpoint_every=checkpoint_every,
            max_pending=max_pending,
            searcher=searcher,
            folder=None if folder is None else Path(folder),
        )
        if stopper is not None:
            use_clock(stopper, lambda: cluster.now)  # budgets of seconds are of virtual ones
        _expect(stopper, sweep)
        _expect(scheduler, sweep)
        if hasattr(scheduler, "use_clock"):
            scheduler.use_clock(lambda: cluster.now)  # and so is the cost of a start
        if hasattr(scheduler, "use_workers"):
            scheduler.use_workers(workers)
        runaway = RUNAWAY * sweep.reports
        limit = runaway if max_reports is None else max_reports
        try:
            cluster.run(until=math.inf if budget is None else budget, max_reports=limit)
            stalled = False
        except StalledError:
            if on_stall == "raise":
                raise
            stalled = True
    if len(cluster.log) >= runaway:
        raise RuntimeError(
            f"stopped after {runaway} reports, {RUNAWAY} times the whole sweep: "
            f"{type(scheduler).__name__} keeps pausing trials that have no newer checkpoint."
        )
    notes = (*notes_of(scheduler, stopper), *left_out)
    return ReplayResult(sweep, metric, direction, costs, cluster, checkpoint_every, stalled, notes)


@dataclass(frozen=True, eq=False)
class ReplayResult:
    """How a replay went. Times are in the unit of `cost`: reports, or seconds."""

    sweep: Sweep
    metric: str
    mode: Literal["min", "max"]
    costs: Costs
    cluster: Cluster
    checkpoint_every: int = 1
    stalled: bool = False  # it ended because the scheduler left every trial waiting
    notes: tuple[
        str, ...
    ] = ()  # a `max_t` that does not fit the trials' time; the sweep in `history`

    @property
    def reports(self) -> int:
        """Reports that were made, those made again after a restore included."""
        return len(self.cluster.log)

    @property
    def seconds(self) -> float:
        """Virtual time at the end: the makespan (in reports under `cost="reports"`)."""
        return self.cluster.now

    @property
    def work(self) -> float:
        """Worker time used, over all workers: training, starts, saves, restores, lost work."""
        return self.cluster.busy

    @cached_property
    def savings(self) -> float:
        """1 − work / the work of running every trial of the sweep once to its recorded end.

        Negative where restores cost more than stopping saved.
        """
        every = self.checkpoint_every
        full = sum(
            self.costs.start
            + sum(self.costs.of(curve))
            + self.costs.save * (int((curve.iterations % every == 0).sum()) if every else 0)
            for curve in self.sweep
        )
        return 1.0 - self.work / full

    @cached_property
    def best_recorded(self) -> float:
        """The best finite value in the record, NaN if there is none."""
        return self._value(min(self._own_bests.values()))

    @cached_property
    def best(self) -> float:
        """The incumbent's value at the end, NaN if no report was finite."""
        values = self.incumbent["value"]
        return float(values.iloc[-1]) if len(values) else math.nan

    @cached_property
    def regret(self) -> float:
        """Final regret, normalised by the sweep's typical trial; 0 is best, 1 worst.

        (incumbent − best recorded) / (median over trials of their own best − best recorded),
        as losses, clipped to [0, 1]. Values that are not finite count as worst; where they make
        the median infinite, it is taken over the trials with a finite value. No finite report:
        1. A typical trial as good as the best: 0 if the best was found, else 1.
        """
        return self.regret_of(self.best)

    def regret_of(self, value: float) -> float:
        """The normalised regret of an incumbent's value, by the definition of `regret`."""
        bests = np.array(list(self._own_bests.values()))
        best, typical = bests.min(), float(np.median(bests))
        if not math.isfinite(typical) and math.isfinite(best):
            typical = float(np.median(bests[np.isfinite(bests)]))
        loss = value if self.mode == "min" else -value
        if not math.isfinite(loss):
            return 1.0
        if typical <= best:
            return float(loss > best)
        return float(np.clip((loss - best) / (typical - best), 0.0, 1.0))

    @cached_property
    def best_stopped(self) -> bool:
        """Whether a rule ended the trial with the best recorded value before it got there.

        Where several trials share that value: whether this befell all that a rule could end.
        """
        best = min(self._own_bests.values())
        if not math.isfinite(best):
            return False
        trials = [t for t in self.cluster.trials if self._own_bests[t.trial_id] == best]
        reached = [best in t.curve.losses(self.metric, self.mode)[t.reported] for t in trials]
        ended = [self.cluster.ended_by.get(t.trial_id) in BY_RULE for t in trials]
        return not any(reached) and any(ended)

    @property
    def best_stopped_cost(self) -> float:
        """How much worse the incumbent is than the best recorded value, in the metric's unit."""
        return abs(self.best - self.best_recorded)

    @cached_property
    def time_to_target(self) -> float | None:
        """When the incumbent first reached the sweep's target; None if never, or if it has none."""
        target = self.sweep.target
        if target is None or self.metric != self.sweep.metric:
            return None
        values = self.incumbent["value"]
        hit = self.incumbent[values <= target if self.mode == "min" else values >= target]
        return float(hit["time"].iloc[0]) if len(hit) else None

    @cached_property
    def incumbent(self) -> pd.DataFrame:
        """The best report so far: a row (`time, reports, trial_id, value`) per improvement."""
        losses = self._losses
        running = np.minimum.accumulate(losses) if len(losses) else losses
        better = running < np.concatenate([[np.inf], running[:-1]])
        rows = np.flatnonzero(better)
        log = self.cluster.log
        return pd.DataFrame(
            {
                "time": [log[row][0] for row in rows],
                "reports": rows + 1,
                "trial_id": [log[row][1].trial_id for row in rows],
                "value": [self._value(losses[row]) for row in rows],
            }
        )

    @cached_property
    def trials(self) -> pd.DataFrame:
        """A row per trial, in the order in which they were handed out.

        `trial_id, status, reports, first_time, last_time, best, ended_by, pauses, failures,
        config/…`; the times, of the first and the last report, are NaN and `ended_by` is empty
        where that never happened; `best` is the best finite value reported. `ended_by`: scheduler,
        stopper, stop_all, trial (it ran its recorded course) or error; a trial that was never
        handed out is PENDING.
        """
        times: dict[str, tuple[float, float]] = {}
        for time, trial, _ in self.cluster.log:
            first, _ = times.get(trial.trial_id, (time, time))
            times[trial.trial_id] = (first, time)
        count = Counter((entry.trial_id, entry.action) for entry in self.cluster.journal)
        rows = []
        for trial in self.cluster.trials:
            losses = trial.curve.losses(self.metric, self.mode)[trial.reported]
            first, last = times.get(trial.trial_id, (math.nan, math.nan))
            key = trial.trial_id
            rows.append(
                {
                    "trial_id": key,
                    "status": trial.status,
                    "reports": len(trial.reported),
                    "first_time": first,
                    "last_time": last,
                    "best": self._value(losses.min(initial=np.inf)),
                    "ended_by": self.cluster.ended_by.get(key, ""),
                    "pauses": count[key, "pause"],
                    "failures": count[key, "retry"] + count[key, "fail"],
                    **{f"config/{name}": value for name, value in trial.curve.config.items()},
                }
            )
        return pd.DataFrame(rows)

    @cached_property
    def journal(self) -> pd.DataFrame:
        """What happened to trials, in order: `time, trial_id, step, action, by, reason`.

        Actions: start, resume (from a checkpoint), restart (from zero), pause, stop, finish
        (recorded course run), retry and fail. `step` is the last reported `training_iteration`.
        """
        return pd.DataFrame(self.cluster.journal, columns=list(Entry._fields))

    @cached_property
    def log(self) -> pd.DataFrame:
        """Every report in order of time: `time, trial_id, training_iteration, value`."""
        log = self.cluster.log
        values = {
            curve.trial_id: curve.metrics.get(self.metric, np.full(len(curve), np.nan))
            for curve in self.sweep
        }
        return pd.DataFrame(
            {
                "time": [time for time, _, _ in log],
                "trial_id": [trial.trial_id for _, trial, _ in log],
                "training_iteration": [int(t.curve.iterations[row]) for _, t, row in log],
                "value": [values[t.trial_id][row] for _, t, row in log],
            }
        )

    @property
    def reading(self) -> str:
        """What of the record was taken for what: columns, missing and diverged values, or ""."""
        return self.sweep.reading_of(self.metric)

    def __repr__(self) -> str:
        reading = f"; {self.reading}" if self.reading else ""
        return (
            f"ReplayResult({self.sweep.name!r}, {self.reports} reports, savings {self.savings:.1%}"
            f", regret {self.regret:.4f}, best stopped: {self.best_stopped}{reading})"
        )

    @cached_property
    def _own_bests(self) -> dict[str, float]:
        """Per trial, the lowest loss in its record; infinite where none is finite."""
        return {c.trial_id: float(c.losses(self.metric, self.mode).min()) for c in self.sweep}

    @cached_property
    def _losses(self) -> npt.NDArray[np.float64]:
        curves = {t.trial_id: t.curve.losses(self.metric, self.mode) for t in self.cluster.trials}
        return np.array([curves[trial.trial_id][row] for _, trial, row in self.cluster.log])

    def _value(self, loss: float) -> float:
        if not math.isfinite(loss):
            return math.nan
        return float(loss if self.mode == "min" else -loss)


def _ordered(sweep: Sweep, order: str, seed: int) -> list[Curve]:
    if order == "recorded":
        return list(sweep)
    if order != "shuffled":
        raise ValueError(f"order must be 'shuffled' or 'recorded', got {order!r}.")
    shuffled = np.random.default_rng(seed).permutation(len(sweep))
    return [sweep.curves[index] for index in shuffled]


def _expect(judge: Stopper | TrialScheduler | None, sweep: Sweep) -> None:
    """Tell the readers in it what the record has: a metric that comes late is not misspelt."""
    if isinstance(judge, (RuleStopper, SweepScheduler)):
        judge.expect(sweep.metrics)
    for member in getattr(judge, "stoppers", ()):
        _expect(member, sweep)


def _set_objective(scheduler: TrialScheduler, metric: str, mode: str) -> None:
    """As `TuneConfig` does, leaving to the scheduler whichever of the two it already has."""
    spec: dict[str, Any] = {"stop": None, "num_samples": 1, "time_budget_s": None}
    for given in ((metric, mode), (metric, None), (None, mode), (None, None)):
        if scheduler.set_search_properties(*given, **spec):
            return
    raise ValueError(f"{type(scheduler).__name__} refuses its metric and mode.")


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Ray's ASHA draws brackets from the global generators: fix them, and put them back."""
    python, legacy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)


def _check(*, workers: int, max_failures: int, checkpoint_every: int) -> None:
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}.")
    if max_failures < -1:
        raise ValueError(f"max_failures must be -1 (no limit) or more, got {max_failures}.")
    if checkpoint_every < 0:
        raise ValueError(f"checkpoint_every must be 0 (never) or more, got {checkpoint_every}.")


def _check_costs(**costs: float | None) -> None:
    for name, value in costs.items():
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(f"{name} must be 0 or more and finite, got {value}.")


def _check_rates(**rates: float) -> None:
    for name, rate in rates.items():
        if not 0 <= rate < 1:
            raise ValueError(f"{name} must be in [0, 1), a probability per report, got {rate}.")
