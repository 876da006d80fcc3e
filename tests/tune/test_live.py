"""What lives only in a running process is left out of what Ray pickles, as a whole."""

import pickle
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

import tune_stoppers as ts
from tune_stoppers import rules
from tune_stoppers.backtest.cluster import Cluster
from tune_stoppers.backtest.trial import Entry
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.tune.live import Live, without_live

METRIC = {"metric": "loss", "mode": "min"}
SCHEDULERS: dict[str, Callable[[], Any]] = {
    "rule": lambda: ts.RuleScheduler(rules.Patience(2), **METRIC),
    "bound": lambda: ts.BoundASHAScheduler(9, 1, **METRIC),
    "auto": lambda: ts.AutoScheduler(9, **METRIC),
    "promotion": lambda: ts.PromotionASHAScheduler(9, 1, **METRIC),
    "freeze-thaw": lambda: ts.FreezeThawScheduler(9, 1, **METRIC),
    "rollback": lambda: ts.RollbackScheduler(2, **METRIC),
}


def recorded() -> Sweep:
    rows = [
        {
            "trial_id": f"t{n}",
            "training_iteration": i,
            "loss": (n * 7 % 12) + abs(i - n) / 10,
            "config/lr": 10.0**-n,
        }
        for n in range(12)
        for i in range(1, 10)
    ]
    return Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min")


def no_time() -> float:
    """A clock that stands still."""
    return 0.0


def replayed(scheduler: Any) -> list[Entry]:
    """What happens to the trials under this very scheduler; `replay` would run a copy."""
    cluster = Cluster(list(recorded()), scheduler, workers=3)
    cluster.run()
    return cluster.journal


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_is_pickled_as_it_was_constructed(name: str) -> None:
    """In another process it begins anew, and decides as it did the first time."""
    scheduler = SCHEDULERS[name]()
    if hasattr(scheduler, "use_clock"):
        scheduler.use_clock(no_time)
    first = replayed(scheduler)
    assert scheduler.decisions
    again = pickle.loads(pickle.dumps(scheduler))
    assert again.decisions == {}
    assert not any(isinstance(part, Live) for part in scheduler.__getstate__().values())
    assert replayed(again) == first


def test_a_stopper_is_pickled_with_what_it_knows_of_the_trials() -> None:
    """But not with where it writes to."""
    stopper = ts.PatienceStopper("loss", "min", patience=3)
    results = [{"training_iteration": i, "loss": 1.0} for i in range(1, 5)]
    assert not any(stopper("t", result) for result in results[:3])
    again = pickle.loads(pickle.dumps(stopper))
    assert not any(isinstance(part, Live) for part in stopper.__getstate__().values())
    assert again("t", results[3])


def test_only_what_lives_is_left_out() -> None:
    """All else stays, under its name."""
    assert without_live({"a": 1, "b": Live(), "c": None}) == {"a": 1, "c": None}
