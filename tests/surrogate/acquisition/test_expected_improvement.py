"""What a worker is worth where."""

from typing import Any

import numpy as np
import pytest

from tune_stoppers.surrogate.acquisition.expected_improvement import (
    Comparison,
    Course,
    ExpectedImprovementAcquisition,
    improvement,
)
from tune_stoppers.surrogate.joint_model import Belief
from tune_stoppers.surrogate.loss_scale import curve_of

RUNGS = (0.25, 0.5, 0.75)
NEW: list[dict[str, Any]] = [{"lr": 10.0**-k} for k in range(6)]


def course(lr: float, *losses: float, waits: bool = True) -> Course:
    values = np.array(losses)
    progress = np.arange(1, len(values) + 1) / 4
    made = curve_of(progress, values, np.minimum.accumulate(values), RUNGS)
    return Course({"lr": lr}, made, waits=waits, runs=not waits and len(values) < 4)


def compare(begun: list[Course], new: Any = (), **more: Any) -> Comparison | None:
    given: dict[str, Any] = {"rungs": RUNGS, "start": 0.0, "resume": 0.02, "picks": 0}
    return ExpectedImprovementAcquisition().compare(list(new), begun, **given | more)


def best(begun: list[Course], new: Any = (), **more: Any) -> Any:
    compared = compare(begun, new, **more)
    assert compared is not None
    return compared.best


def test_the_improvement_is_that_of_the_formula():
    """By numerical integration."""
    dice = np.random.default_rng(0).normal(0.4, 0.3, 400_000)
    gain, chance = improvement(Belief(np.array([0.4]), np.array([0.3])), 0.1)
    assert gain[0] == pytest.approx(np.maximum(0.1 - dice, 0).mean(), rel=0.02)
    assert chance[0] == pytest.approx((dice < 0.1).mean(), rel=0.02)


def test_the_trial_that_is_ahead_is_resumed():
    """Of those that wait at the same rung."""
    begun = [course(1e-1, 3.0), course(1e-2, 1.0), course(1e-3, 2.5), course(1e-4, 2.8)]
    assert best(begun).place == 1


def test_the_best_so_far_goes_before_all_others():
    """Though new ones are worth more; not where one as good runs, or nothing more is expected."""
    begun = [course(1e-2, 2.0, 1.9), course(1e-1, 4.0), course(1e-4, 4.1)]
    compared = compare(begun, NEW, resume=2.0)
    assert compared is not None
    assert compared.best.place == len(NEW) and compared.best.leads
    assert compared.worth.max() > compared.best.worth
    as_good = course(1e-2, 2.0, 1.9, waits=False)
    many = compare(begun, [{"lr": 10.0 ** -(k / 20)} for k in range(81)], resume=2.0)
    assert many is not None and not many.best.leads
    followed = compare([*begun, as_good], NEW)
    assert followed is not None
    assert not followed.leads.any()
    assert best(begun, NEW, resume=2.0, least_gain=10.0).place < len(NEW)


def test_where_trials_end_at_a_target_none_is_expected_to_end_far_below():
    """The curves alone promise more. Of those that wait, who does best is still worth most."""
    ends = [(4.0, 2.0), (4.0, 3.0, 1.9), (3.9, 2.05), (3.8, 3.0, 1.95)]
    begun = [course(1e-1, 4.0, 4.0), course(1e-2, 4.0, 2.5), course(1e-4, 4.1)]
    over = [course(10.0**-k, *losses, waits=False) for k, losses in enumerate(ends)]
    promised = compare([*begun, *(each._replace(runs=False) for each in over)])
    told = compare([*begun, *(each._replace(runs=False, ended=True) for each in over)])
    assert promised is not None and told is not None
    assert not promised.at_target and told.at_target
    assert told.most_gain < promised.most_gain / 2
    assert told.best.place == 1
    assert told.best.expected > 1.9
    assert told.of(0).worth == promised.of(0).worth < told.best.worth


def test_a_new_configuration_near_good_ones_starts_and_one_near_bad_ones_does_not():
    """The model of configurations orders those that have not begun."""
    begun = [course(10.0**-k, *[2.0 + abs(k - 3) - 0.5 * t for t in range(4)]) for k in (0, 1, 5)]
    begun.append(course(10.0**-2.6, 2.0, 1.4, 0.8, 0.2))
    compared = compare(begun, NEW)
    assert compared is not None
    offer = compared.best_new(len(NEW))
    assert offer is not None
    assert NEW[offer.place]["lr"] in (1e-2, 1e-3)


def test_the_trial_that_has_its_worker_needs_less_to_keep_it():
    """It pays for no resume, and so wins where two are alike."""
    begun = [course(1e-2, 2.0), course(1e-2, 2.0), course(1e-1, 3.0), course(1e-4, 3.0)]
    for place in (0, 1):
        assert best(begun, arriving=place).place == place


def test_nothing_to_do_and_nothing_known_are_no_offer():
    """As at the end of a sweep, and before its first finite report."""
    assert compare([course(1e-2, 3.0, 2.0, 1.0, 0.5, waits=False)]) is None
    assert compare([course(1e-2, np.inf)], NEW) is None
    assert compare([], NEW) is None


def test_what_is_said_is_in_the_metric_s_units():
    """The expected loss lies where the trial can end; the probability is one."""
    offer = best([course(1e-2, 3.0, 2.0), course(1e-3, 4.0, 3.0), course(1e-4, 4.5)])
    assert offer.best == 2.0
    assert 0 < offer.expected < 3.0
    assert offer.spread > 0
    assert 0 < offer.chance < 1


def test_little_is_expected_of_those_that_are_far_behind_when_others_have_ended():
    """So the sweep may end; a trial that still runs and leads keeps it going."""
    ended = [course(10.0**-k, 3.0, 2.0, 1.5, 1.0 + k / 10, waits=False) for k in range(4)]
    hopeless = compare([*ended, course(10.0, 3.9, 3.8, 3.7), course(20.0, 4.0, 3.9, 3.8)])
    assert hopeless is not None
    assert hopeless.most_gain < 0.01
    leading = course(1e-2, 2.0, 1.0, 0.9, waits=False)
    kept = compare([*ended, course(10.0, 3.9, 3.8, 3.7), leading])
    assert kept is not None
    assert kept.most_gain > 0.01


def test_many_trials_are_compared_by_some_of_them():
    """The choice stays quick, the one that asks is among them, and a seed decides."""
    dice = np.random.default_rng(1)
    begun = [course(float(10 ** -dice.uniform(0, 5)), 2 + dice.random()) for _ in range(300)]
    new = [{"lr": float(10 ** -dice.uniform(0, 5))} for _ in range(300)]
    compared = compare(begun, new, arriving=299)
    assert compared is not None
    assert len(compared.places) <= 80 + 101
    assert compared.of(300 + 299) is not None
    again = compare(begun, new, arriving=299)
    assert again is not None
    assert again.best == compared.best


def test_nothing_is_expected_of_a_trial_that_has_diverged():
    """Though its best is the best of all: where others ended says nothing of where it ends."""
    others = [course(1e-3, 4.0, 3.5), course(1e-4, 4.1, 3.9), course(1e-5, 4.0, 4.0)]
    gone, back = course(1e-1, 3.2, 40.0), course(1e-1, 3.2, 3.1)
    compared = compare([gone, *others])
    assert compared is not None
    assert compared.of(0).gain == compared.of(0).chance == compared.of(0).worth == 0
    assert compared.best.place != 0
    assert compare([back, *others]).of(0).gain > 0


def test_where_nothing_can_be_paused_a_divergence_is_not_presumed():
    """A trial that is stopped cannot come back: the belief alone speaks."""
    begun = [course(1e-1, 3.2, 40.0), course(1e-3, 4.0, 3.5), course(1e-4, 4.1, 3.9)]
    assert compare(begun, recoverable=False).of(0).gain > 0


def test_a_start_that_costs_makes_who_has_a_worker_go_on():
    """A new configuration pays for its start, as one that waits does for its resume."""
    begun = [course(1e-3, 3.0, 2.5, 2.4), course(1e-5, 4.0), course(1e-6, 4.0)]
    free = compare(begun, NEW, arriving=0)
    dear = compare(begun, NEW, arriving=0, start=0.5)
    assert free is not None and dear is not None
    assert dear.best_new(len(NEW)).worth < free.best_new(len(NEW)).worth
    assert dear.of(len(NEW)).worth == free.of(len(NEW)).worth


def test_where_the_metric_is_coarse_the_training_loss_tells_trials_apart():
    """Ten trials have the same accuracy; the one that learns fastest is resumed, wherever it is."""
    for fastest in (2, 7):
        begun = [course(1e-3, 1.0, 0.8, 0.6) for _ in range(10)]
        begun += [course(1e-3, 1.0, 1.0, 0.8) for _ in range(4)]
        signals = [course(1e-3, 3.0, 2.5, 2.4 + 0.01 * n).curve for n in range(len(begun))]
        signals[fastest] = course(1e-3, 3.0, 2.0, 1.5).curve
        signals[10:] = [course(1e-3, 3.0, 2.9, 2.8).curve for _ in range(4)]
        assert best(begun).place != fastest
        told = [each._replace(signal=s) for each, s in zip(begun, signals, strict=True)]
        assert best(told).place == fastest
