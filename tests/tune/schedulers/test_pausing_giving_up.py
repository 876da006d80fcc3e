"""Nothing is given up, and nothing is paused, for nothing: in replays and on a stand-in for Ray."""

import math
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ray import tune

from tests.stand_ins.pausing_stage import StandIn, basic
from tune_stoppers import (
    AutoScheduler,
    FreezeThawScheduler,
    PromotionASHAScheduler,
    Sweep,
    replay,
)
from tune_stoppers.tune.schedulers.workers import capacity

PAUSING: Any = (PromotionASHAScheduler, FreezeThawScheduler)
MAX_T = 27


def with_short_ones(shorts: int, until: int, sign: int = 1) -> Sweep:
    """Twelve trials that fall from .78 to .25; the first few end early, and look good by then."""
    rows = [
        {
            "trial_id": f"t{k:02d}",
            "training_iteration": t,
            "loss": sign * (0.70 - 0.01 * t if k < shorts else 0.80 - 0.02 * t - 0.001 * k),
            "config/lr": 0.001 * (k + 1),
        }
        for k in range(12)
        for t in range(1, (until if k < shorts else MAX_T) + 1)
    ]
    return Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min" if sign == 1 else "max")


@pytest.mark.parametrize("make", [*PAUSING, AutoScheduler])
@pytest.mark.parametrize("workers", [1, 2, 4, 8])
@pytest.mark.parametrize(("shorts", "until"), [(1, 3), (1, 9), (3, 3), (3, 7), (5, 20)])
def test_a_trial_that_ends_early_does_not_end_the_others(
    make: Any, workers: int, shorts: int, until: int
) -> None:
    """However good it is: they are trained on until one has run to its end.

    `AutoScheduler` ends where little is left to gain: of losses that fall by .53 it may leave .01.
    """
    result = replay(
        with_short_ones(shorts, until), make(MAX_T), workers=workers, max_pending=workers
    )
    assert result.trials.reports.max() == MAX_T
    little = 0.01 if make is AutoScheduler else 0.005
    assert result.best == pytest.approx(result.best_recorded, abs=little)


@pytest.mark.parametrize("make", PAUSING)
def test_the_direction_of_the_metric_changes_nothing(make: Any) -> None:
    """A short trial under mode="max"."""
    one, other = (
        replay(with_short_ones(1, 3, sign), make(MAX_T), workers=4, max_pending=4)
        for sign in (1, -1)
    )
    assert one.trials.reports.tolist() == other.trials.reports.tolist()


def every_second(end: int) -> Sweep:
    """Ten trials of `end` reports; the metric comes with every second one."""
    rows = [
        {
            "trial_id": f"t{k}",
            "training_iteration": step,
            "loss": k - 0.1 * step if step % 2 == 0 else math.nan,
            "other": 1.0,
        }
        for k in range(10)
        for step in range(1, end + 1)
    ]
    curves = Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min").curves
    for curve in curves:
        curve.missing["loss"] = np.isnan(curve.metrics["loss"])
    return Sweep(curves, metric="loss", mode="min")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_last_report_without_the_metric_is_no_less_an_end(workers: int) -> None:
    """The trial ends with its last judged report, and the hopeless are given up."""
    whole = []
    for end in (8, 9):
        scheduler = PromotionASHAScheduler(9, 1, metric="loss", mode="min", on_missing="skip")
        result = replay(every_second(end), scheduler, workers=workers, max_pending=workers)
        whole.append(int((result.trials.reports == end).sum()))
    assert whole[0] == whole[1] < 5


def few(trials: int) -> Sweep:
    rows = [
        {"trial_id": f"t{k}", "training_iteration": step, "loss": k + 1 / step, "config/lr": k}
        for k in range(trials)
        for step in range(1, 10)
    ]
    return Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min")


@pytest.mark.parametrize("make", PAUSING)
@pytest.mark.parametrize(("trials", "workers"), [(1, 1), (1, 4), (2, 3), (3, 4), (8, 8)])
def test_where_each_trial_has_its_worker_none_is_paused(
    make: Any, trials: int, workers: int
) -> None:
    """Nobody else could use the worker."""
    result = replay(few(trials), make(9, 1), workers=workers)
    assert "pause" not in set(result.journal["action"])
    assert result.trials.reports.tolist() == [9] * trials


@pytest.mark.parametrize("make", PAUSING)
def test_where_only_one_trial_may_live_it_is_not_paused(make: Any) -> None:
    """Under a `ConcurrencyLimiter` of one: it suggests no other before that one has ended."""
    ray = StandIn(make(9, 1), basic(sys.maxsize, max_concurrent=1))
    for name, loss in (("a", 1.0), ("b", 2.0), ("c", 0.5)):
        ray.add(name)
        assert ray.start() == name
        actions = [ray.report(name, step, loss) for step in range(1, 10)]
        assert actions == ["CONTINUE"] * 8 + ["STOP"]


@pytest.mark.parametrize("make", PAUSING)
def test_over_known_trials_a_limit_counts_those_that_run(make: Any) -> None:
    """`max_concurrent_trials=2` of fifty: one that is paused makes room, and nobody is given up."""
    search = basic(50, max_concurrent=2)
    ray = StandIn(make(9, 1), search)
    search._live_trials = {"a", "b"}  # as when it has given them out
    ray.add("a", "b", "c", "d")
    assert not search._live_trials
    assert [ray.start(), ray.start()] == ["a", "b"]
    assert ray.choose() is None
    assert ray.statuses() == {"a": "RUNNING", "b": "RUNNING", "c": "PAUSED", "d": "PAUSED"}
    assert ray.report("a", 1, 2.0) == "PAUSE"
    assert ray.start() == "c"
    assert ray.choose() is None
    assert ray.statuses() == {"a": "PAUSED", "b": "RUNNING", "c": "RUNNING", "d": "PAUSED"}


@pytest.mark.parametrize("make", PAUSING)
def test_where_another_waits_it_is_paused(make: Any) -> None:
    """With two workers and three trials the third needs one."""
    result = replay(few(3), make(9, 1), workers=1)
    assert "pause" in set(result.journal["action"])


def test_one_that_is_behind_is_paused_though_it_is_alone() -> None:
    """At the end of a sweep it would only be given up: its worker has better to do."""
    ray = StandIn(PromotionASHAScheduler(9, 1, pen=1))
    ray.add("a", "b")
    assert ray.start() == "a"
    assert [ray.report("a", step, 1.0, saved=False) for step in range(1, 10)][-1] == "STOP"
    assert ray.start() == "b"
    assert ray.report("b", 1, 5.0) == "PAUSE"
    assert ray.start() is None
    assert ray.statuses() == {"a": "TERMINATED", "b": "TERMINATED"}


def test_how_many_trials_a_cluster_holds(ray_session: None) -> None:
    """By what Ray says of both; a replay cannot say."""
    trial = tune.experiment.Trial("t", stub=True)
    assert capacity(trial) == 0
    trial.placement_group_factory = tune.PlacementGroupFactory([{"CPU": 1}])
    whole = capacity(trial)
    assert whole >= 1
    trial.placement_group_factory = tune.PlacementGroupFactory([{"CPU": 1}, {"CPU": 1}])
    assert capacity(trial) == whole // 2
    trial.placement_group_factory = tune.PlacementGroupFactory([{"CPU": 1, "GPU": 9}])
    assert capacity(trial) == 0
