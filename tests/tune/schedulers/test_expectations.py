"""`history=` of every scheduler that orders trials by a model: the same argument, the same meaning.

What `AutoScheduler` alone makes of it is tested with it.
"""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.stand_ins.folders import trial
from tests.tune.schedulers.test_auto import HORIZON, curves
from tune_stoppers import AutoScheduler, BoundASHAScheduler, FreezeThawScheduler, replay
from tune_stoppers.backtest.replay import ReplayResult
from tune_stoppers.recorded.sweep import Sweep

Make = Callable[..., Any]


def bound_asha(max_t: float, **more: Any) -> BoundASHAScheduler:
    return BoundASHAScheduler(max_t, order="model", **more)


EVERY = pytest.mark.parametrize("make", [AutoScheduler, FreezeThawScheduler, bound_asha])
NEW = curves(24, seed=6)


def starts(result: ReplayResult) -> list[str]:
    journal = result.journal
    return list(journal[journal["action"] == "start"]["trial_id"])


def mean_of(result: ReplayResult, first: int, every: int = 1) -> float:
    """The mean final loss of the first trials that were started, or of every second of them."""
    finals = {curve.trial_id: curve.metrics["loss"].min() for curve in result.sweep.curves}
    return float(np.mean([finals[trial_id] for trial_id in starts(result)[:first:every]]))


def negated(sweep: Sweep) -> Sweep:
    for curve in sweep.curves:
        curve.metrics["loss"][:] = 9 - curve.metrics["loss"]
    return sweep


@EVERY
def test_the_first_trials_are_those_of_which_most_is_expected(make: Make) -> None:
    """`AutoScheduler` takes every second one from the history, the others in the order given."""
    every = 2 if make is AutoScheduler else 1
    cold = replay(NEW, make(HORIZON), workers=4)
    warm = replay(NEW, make(HORIZON, history=curves(40, seed=7)), workers=4)
    wrong = replay(NEW, make(HORIZON, history=negated(curves(40, seed=7))), workers=4)
    assert mean_of(warm, 8, every) < mean_of(cold, 8) - 0.3
    assert mean_of(wrong, 8, every) > mean_of(cold, 8)
    assert warm.regret < 0.02


def test_every_second_of_the_first_trials_is_the_next_in_the_order_given() -> None:
    """Of `AutoScheduler`: so that a history that is wrong shows."""
    scheduler = AutoScheduler(HORIZON, history=curves(40, seed=7))
    began = starts(replay(NEW, scheduler, workers=4, order="recorded"))
    given = [curve.trial_id for curve in NEW.curves]
    for place in (1, 3, 5, 7):
        assert began[place] == next(name for name in given if name not in began[:place])
    assert began[:8] != given[:8]


@EVERY
def test_the_best_is_found_after_a_history_that_is_the_wrong_way_round(make: Make) -> None:
    """As well as without one: the mean of ten sweeps, of which either loses some."""
    cold, wrong = [], []
    for seed in range(6, 16):
        new, history = curves(24, seed=seed), negated(curves(40, seed=7))
        cold.append(replay(new, make(HORIZON), workers=4).regret)
        wrong.append(replay(new, make(HORIZON, history=history), workers=4).regret)
    assert np.mean(wrong) < np.mean(cold) + 0.02


@EVERY
def test_a_history_of_other_hyperparameters_changes_nothing(make: Make) -> None:
    """Nor does one that is named twice."""
    other, earlier = curves(20, seed=8), curves(20, seed=9)
    for curve in other.curves:
        curve.config["momentum"] = curve.config.pop("lr")
    plain = replay(NEW, make(HORIZON)).journal
    assert replay(NEW, make(HORIZON, history=other)).journal.equals(plain)
    once, twice = (
        replay(NEW, make(HORIZON, history=history)).journal
        for history in (earlier, [earlier, earlier])
    )
    assert once.equals(twice)
    assert not once.equals(plain)


@EVERY
def test_what_was_taken_from_the_folders_stays_with_the_scheduler(
    make: Make, tmp_path: Path
) -> None:
    """Ray restores the scheduler as it was constructed: the folders are not read again."""
    for place, lr in enumerate((1e-5, 1e-4, 1e-3, 1e-2, 1e-1)):
        trial(tmp_path / "old", f"t{place}", [4.0, abs(place - 2.0)], {"lr": lr})
    scheduler = make(HORIZON, history=Sweep.from_ray(tmp_path / "old", metric="loss", mode="min"))
    kept = pickle.dumps(scheduler)
    shutil.rmtree(tmp_path / "old")
    restored = pickle.loads(kept)
    assert restored.said_of_history == scheduler.said_of_history
    assert replay(NEW, restored).journal.equals(replay(NEW, scheduler).journal)
    assert not replay(NEW, restored).journal.equals(replay(NEW, make(HORIZON)).journal)


@EVERY
def test_a_scheduler_that_an_earlier_version_kept_has_none(make: Make) -> None:
    """It was pickled without the attribute."""
    state = make(HORIZON).__getstate__()
    state.pop("history")
    scheduler = make(HORIZON)
    scheduler.__setstate__(state)
    assert scheduler.history is None
    assert scheduler.said_of_history == ()


@EVERY
def test_what_cannot_be_read_is_an_error_at_once(make: Make, tmp_path: Path) -> None:
    """By its path; so is what is no history at all."""
    with pytest.raises(ValueError, match="nowhere"):
        make(HORIZON, history=str(tmp_path / "nowhere"))
    with pytest.raises(TypeError, match="history takes a Ray experiment's folder"):
        make(HORIZON, history=3)


@EVERY
def test_it_tells_what_it_used(make: Make) -> None:
    """Before the first choice what was read; then how it was matched, and why each starts."""
    scheduler = make(HORIZON, history="lora")
    assert scheduler.said_of_history == ()
    configs = [curve.config for curve in NEW.curves]
    scheduler._expectations.expected(configs)
    assert any("lr (there learning_rate)" in line for line in scheduler.said_of_history)
    assert make(HORIZON).said_of_history == ()


def test_the_order_given_takes_no_history() -> None:
    """It would be read for nothing."""
    with pytest.raises(ValueError, match="history needs order=\"model\", got 'given'"):
        BoundASHAScheduler(HORIZON, history="lora")
