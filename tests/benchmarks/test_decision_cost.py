"""The benchmark of what decisions cost: it misses nothing, and its sweeps come to their end."""

from typing import Any

import pytest
from ray.tune.experiment import Trial

from benchmarks.decision_cost import (
    MOST_TRIALS,
    Stand,
    drive,
    ours,
    rays,
    unmeasured,
    weight,
    work,
)

RULES = ours() | rays()


def test_every_public_stopper_and_scheduler_is_measured():
    """A new one needs a row in the benchmark."""
    assert unmeasured() == []


@pytest.mark.parametrize("name", RULES)
def test_its_sweeps_end(name: str):
    """Under every rule, all trials of the stand-in's sweep run and end."""
    stand = Stand(RULES[name](9), trials=22, reports=9)
    reports = sum(1 for _ in drive(stand))
    ended = sum(trial.status == Trial.TERMINATED for trial in stand.trials)
    if name == "Ray HyperBandScheduler":  # waits for ever for a bracket that is not full
        assert ended > 0
    else:
        assert (ended, stand.waiting) == (22, 0)
    assert 22 <= reports <= 22 * 9 * 2


class Unlisted(Stand):
    """A controller that cannot go through its trials."""

    def get_trials(self) -> list[Any]:
        raise AssertionError("went through all the trials")


def test_promotions_are_found_without_going_through_all_trials():
    """Who goes on, starts or is given up is known by its id: a choice costs the same late on."""
    stand = Unlisted(ours()["PromotionASHAScheduler"](9), trials=50, reports=9)
    assert sum(1 for _ in drive(stand)) > 50


def growth(name: str, trials: int, sample: int) -> float:
    """Of the steps of Python that a report takes, from so many trials to four times as many."""
    few, many = (work(RULES[name], n, reports=8, sample=sample) for n in (trials, 4 * trials))
    return many / few


@pytest.mark.parametrize("name", [name for name in ours() if name not in MOST_TRIALS])
def test_flat_means_flat(name: str):
    """A decision of ours takes no more steps among many trials; more of them are stops, at most."""
    assert growth(name, trials=150, sample=100) < 1.3


@pytest.mark.parametrize("name", MOST_TRIALS)
def test_what_compares_all_trials_grows_with_their_number_at_most(name: str):
    """Of four times as many trials, a choice takes four times as many steps."""
    assert growth(name, trials=30, sample=30) < 5


def test_what_grows_is_seen_to_grow():
    """Ray's median rule looks at every trial for each report."""
    assert growth("Ray MedianStoppingRule", trials=60, sample=10) > 1.3


def test_the_weight_is_that_of_all_that_is_held():
    """Once each, what is held twice or in a circle too."""
    text = "x" * 1000
    circle: list[Any] = [text, [text]]
    circle.append(circle)
    assert 1000 < weight(circle) < 1500
