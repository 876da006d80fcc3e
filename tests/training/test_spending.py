"""`Spending`: what was spent so far, by a clock that a test can move."""

import pickle

import pytest

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
