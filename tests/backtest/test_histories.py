"""A history in a replay: who takes it, and that no sweep knows itself."""

from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import ASHAScheduler

from tests.tune.schedulers.test_auto import HORIZON, curves
from tune_stoppers import (
    AutoScheduler,
    BoundASHAScheduler,
    FreezeThawScheduler,
    PromotionASHAScheduler,
    compare,
    replay,
)
from tune_stoppers.backtest.histories import take
from tune_stoppers.history import History
from tune_stoppers.recorded.sweep import Sweep

SWEEP, EARLIER = curves(16, seed=6), curves(16, seed=7)


@pytest.mark.parametrize(
    ("scheduler", "takes"),
    [
        (AutoScheduler(HORIZON), True),
        (FreezeThawScheduler(HORIZON), True),
        (BoundASHAScheduler(HORIZON, order="model"), True),
        (BoundASHAScheduler(HORIZON), False),
        (PromotionASHAScheduler(HORIZON), False),
        (AutoScheduler(HORIZON, history="lora"), False),  # it keeps its own
        (ASHAScheduler(), False),
        (None, False),
    ],
)
def test_those_that_can_use_it_take_it(scheduler: Any, takes: bool) -> None:
    """As if it had been given to them; the others are left as they are."""
    history = History.of(EARLIER)
    assert take(scheduler, history) == takes
    assert (getattr(scheduler, "history", None) is history) == takes


def test_taken_later_it_is_the_same_as_given() -> None:
    """Every decision."""
    later = AutoScheduler(HORIZON)
    assert take(later, History.of(EARLIER))
    given = AutoScheduler(HORIZON, history=EARLIER)
    assert replay(SWEEP, later).journal.equals(replay(SWEEP, given).journal)


def test_a_replayed_sweep_does_not_know_itself(tmp_path: Any) -> None:
    """Also from another file: it is replayed as without it, and that is said."""
    SWEEP.to_parquet(tmp_path / "itself.parquet")
    history = [EARLIER, str(tmp_path / "itself.parquet")]
    result = replay(SWEEP, AutoScheduler(HORIZON, history=history))
    alone = replay(SWEEP, AutoScheduler(HORIZON, history=EARLIER))
    assert result.journal.equals(alone.journal)
    (note,) = result.notes
    assert note == "made is left out of the history: it is the sweep that is replayed."
    assert alone.notes == ()
    only = replay(SWEEP, AutoScheduler(HORIZON, history=SWEEP))
    assert only.journal.equals(replay(SWEEP, AutoScheduler(HORIZON)).journal)


def test_a_thinned_sweep_does_not_know_itself_either() -> None:
    """`compare` thins long curves; trials that diverge at their end are among them."""
    sweep = curves(16, seed=6)
    sweep.curves[3].metrics["loss"][-1] = np.nan

    def make(given: Sweep) -> AutoScheduler:
        return AutoScheduler(given.max_t, history=sweep)

    options: dict[str, Any] = {"orderings": 1, "workers": 4, "thin_to": 12, "processes": 1}
    found = compare(sweep, {"auto": make}, **options)
    (note,) = found.notes
    assert note.startswith("auto on made: made is left out of the history")
    cold = compare(sweep, {"auto": lambda given: AutoScheduler(given.max_t)}, **options)
    assert found.runs["reports"].tolist() == cold.runs["reports"].tolist()
