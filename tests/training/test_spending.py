"""`Spending`: what was spent so far, by a clock that a test can move."""

import pickle
import time
from pathlib import Path

import pytest
from transformers import Trainer, TrainingArguments, default_data_collator

from tests.stand_ins.tiny import tiny_model, tiny_rows
from tune_stoppers import EarlyStopping, RuleCallback, rules
from tune_stoppers.training.spending import Spending


class Clock:
    """Seconds that pass when told to."""

    def __init__(self, now=1e6):
        self.now = now

    def __call__(self):
        return self.now


def test_work_adds_up_per_trial_and_over_all():
    """A negative time is a clock that was set back, not work undone."""
    spending = Spending()
    for trial, seconds in [("a", 5.0), ("b", 7.0), ("a", 2.0), ("a", -100.0)]:
        spending.add(trial, seconds)
    totals = [spending.totals(trial) for trial in ("a", "b", "never seen")]
    assert [t["trial_active_seconds"] for t in totals] == [7.0, 7.0, 0.0]
    assert {t["sweep_active_seconds"] for t in totals} == {14.0}


def test_the_clock_starts_with_the_first_question():
    """Not where the object is made, which may be long before the sweep."""
    clock = Clock()
    spending = Spending(clock)
    clock.now += 1000
    assert spending.elapsed() == 0
    clock.now += 7
    assert spending.elapsed() == spending.totals("a")["sweep_seconds"] == 7


def test_downtime_is_free():
    """A pickled copy goes on from what had passed, on a machine whose clock has another zero."""
    clock = Clock()
    spending = Spending(clock)
    spending.elapsed()
    spending.add("a", 3.0)
    clock.now += 7
    data = pickle.dumps(spending)
    copy = pickle.loads(data)
    copy.use(later := Clock(5.0))
    assert copy.elapsed() == 7
    later.now += 2
    assert copy.elapsed() == 9
    assert copy.totals("a")["trial_active_seconds"] == 3.0
    clock.now += 1
    assert spending.elapsed() == 8  # pickling did not disturb it


def test_seconds_that_a_state_dict_kept_count_on():
    """Where nothing is pickled."""
    clock = Clock()
    spending = Spending(clock, elapsed=7.0)
    assert spending.elapsed() == 7
    clock.now += 2
    assert spending.elapsed() == 9


def test_another_clock_may_take_over():
    """What had passed by the first one stays."""
    first, second = Clock(), Clock(0.0)
    spending = Spending(first)
    spending.elapsed()
    first.now += 4
    spending.use(second)
    assert spending.elapsed() == 4
    second.now += 0.5
    assert spending.elapsed() == pytest.approx(4.5)


def test_plain_loop_ends_when_its_time_is_spent() -> None:
    """`EarlyStopping` counts the seconds of its own run, and a reloaded one goes on from them."""
    stop = EarlyStopping(rules.Budget(trial_seconds=0.05), mode="min")
    assert not stop({"loss": 1.0})
    time.sleep(0.06)
    saved = stop.state_dict()
    again = EarlyStopping(rules.Budget(trial_seconds=0.05), mode="min")
    again.load_state_dict(saved)
    assert again({"loss": 1.0})
    assert "the trial has used" in again.reason


def test_trainer_ends_when_its_time_is_spent(tmp_path: Path) -> None:
    """`RuleCallback` needs no metric for a budget: any log will do."""
    callback = RuleCallback(rules.Budget(trial_seconds=1e-6))
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=5,
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        save_strategy="no",
    )
    Trainer(
        model=tiny_model(),
        args=arguments,
        train_dataset=tiny_rows(),
        data_collator=default_data_collator,
        callbacks=[callback],
    ).train()
    assert callback.stopped
    assert "the trial has used" in callback.reason
