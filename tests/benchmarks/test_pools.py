"""Pools are drawn, and scored, as the benchmark of small sweeps says."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import pools
from benchmarks.pools import PEFT_BY_LOSS, Task, draw, load, random_search, regret_by, scored
from tune_stoppers.backtest.replay import replay
from tune_stoppers.recorded.sweep import Sweep


def flat(values: list[float], target: float | None = None) -> Sweep:
    """A trial for each value, which it reports twice."""
    rows = [
        {"trial_id": f"t{i:02d}", "training_iteration": t, "loss": value}
        for i, value in enumerate(values)
        for t in (1, 2)
    ]
    return Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min", target=target)


def test_a_pool_is_some_of_the_trials_and_the_same_each_time() -> None:
    """It keeps the horizon of the whole sweep; another number is another pool."""
    task = Task("a", flat([*np.arange(40.0)]))
    ids = draw(task, 8, 3).trial_ids
    assert ids == draw(task, 8, 3).trial_ids
    assert ids != draw(task, 8, 4).trial_ids
    assert len(set(ids)) == 8
    assert sorted(draw(task, 64, 0).trial_ids) == task.sweep.trial_ids
    assert len(task.sweep) == 40


def test_some_trial_of_a_pool_reaches_the_target() -> None:
    """One in forty does; a pool of two has it."""
    task = Task("a", flat([*np.arange(40.0)], target=0.5))
    for number in range(3):
        assert "t00" in draw(task, 2, number).trial_ids
    pool = draw(task, 2, 0)
    regret_of = regret_by(pool, replay(pool, order="recorded"))
    assert [regret_of(value) for value in (7.0, 0.6, 0.5)] == [1.0, 1.0, 0.0]


def test_what_random_search_finds_with_so_much_work() -> None:
    """With one worker half the work is one of two trials; with two, both are half trained."""
    pool = flat([0.0, 1.0, 2.0])
    regret_of = regret_by(pool, replay(pool))
    one = random_search(pool, 1, regret_of)
    assert one([0.0, 1.0]).tolist() == [1.0, 0.0]
    assert one(1 / 3) == pytest.approx(2 / 3, abs=0.15)  # the best is first in one order of three
    three = random_search(pool, 3, regret_of)
    assert three(0.5) == 0.0


def test_a_metric_that_rules_see_does_not_count(tmp_path, monkeypatch) -> None:
    """Pruned by the training loss, judged by the accuracy; the signals are there for both."""
    rows = [
        {
            "trial_id": f"t{i}",
            "training_iteration": t,
            "valid_accuracy": accuracy,
            "train_loss": 1.0 - accuracy,
            "test_accuracy": 0.0,
        }
        for i, accuracy in enumerate((0.1, 0.2, 0.5))
        for t in (1, 2)
    ]
    modes = {"train_loss": "min", "valid_accuracy": "max"}
    sweep = Sweep.from_frame(
        pd.DataFrame(rows), metric="valid_accuracy", mode="max", modes=modes, name="x"
    )
    sweep.to_parquet(tmp_path / "peft_a.parquet")
    by_accuracy, by_loss = load(tmp_path, ("peft", PEFT_BY_LOSS))
    assert by_accuracy.sweep.metrics == ("valid_accuracy", "train_loss")
    assert (by_accuracy.seen, by_loss.seen) == ((None, None), ("train_loss", "min"))
    result = replay(by_loss.sweep, metric="train_loss", mode="min")
    assert (result.best, scored(result).best) == (0.5, 0.5)
    assert (scored(result).metric, scored(result).mode) == ("valid_accuracy", "max")


def test_a_family_without_a_file_is_named(tmp_path) -> None:
    """In one error, with what was looked for."""
    with pytest.raises(FileNotFoundError, match=r"holds no lora_\*.parquet, the family 'lora'"):
        load(tmp_path, ("lora",))
    assert set(pools.LLM) < set(pools.FILES)
