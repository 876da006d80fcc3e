"""Where trials end: the joint model of configurations and progress."""

from typing import Any

import numpy as np
import pytest
from scipy.linalg import cho_solve

from tune_stoppers.surrogate.encoding import points_of
from tune_stoppers.surrogate.joint_model import NOISE, UNIT, JointModel, Observations, is_rate

RATES = 10.0 ** np.linspace(-5, -1, 17)
CONFIGS: list[dict[str, Any]] = [{"lr": float(rate), "seed": i % 3} for i, rate in enumerate(RATES)]


def end_of(place: int) -> float:
    return float((np.log10(RATES[place]) + 3) ** 2 / 2)


def model(seen: list[tuple[int, float, float]], noise: float = 0.0, expected: Any = None):
    rows = sorted(seen)
    observed = Observations(
        np.array([row[0] for row in rows]),
        np.array([row[1] for row in rows]),
        np.array([row[2] for row in rows]),
        np.full(len(rows), noise),
    )
    made = JointModel()
    made.condition(points_of(CONFIGS), observed, noise, expected)
    return made


def ends(made: JointModel):
    return made.at(np.arange(len(CONFIGS)), np.ones(len(CONFIGS)))


def test_what_was_seen_at_an_end_is_believed_and_the_rest_is_in_doubt():
    """The further a trial has come, the less."""
    belief = ends(model([(0, 1.0, 2.0), (4, 0.1, 1.0), (8, 0.5, 1.0), (12, 1.0, 0.5)]))
    assert belief.mean[[0, 12]] == pytest.approx([2.0, 0.5], abs=0.1)
    assert belief.sd[0] < 0.1
    assert belief.sd[0] < belief.sd[8] < belief.sd[4] < belief.sd[16]


def test_similar_configurations_are_expected_to_end_alike():
    """The best learning rate is found between those that were tried."""
    seen = [(place, 1.0, end_of(place)) for place in range(0, 17, 4)]
    belief = ends(model(seen))
    assert abs(int(np.argmin(belief.mean)) - 8) <= 2
    assert belief.mean[0] > belief.mean[8] + 1


def test_what_all_trials_still_gain_is_learnt_from_those_that_went_on():
    """A trial at a tenth is expected to end far below where it is, once others have."""
    young = (1, 0.1, 2.0)
    without = ends(model([young, (0, 0.1, 2.1), (2, 0.1, 2.0)])).mean[1]
    gained = [(0, 0.1, 2.1), (0, 1.0, 0.1), (2, 0.1, 2.0), (2, 1.0, 0.0)]
    assert ends(model([young, *gained])).mean[1] < without - 0.5


def test_noise_makes_ends_less_sure():
    """An evaluation on fifty items can be a lucky one."""
    seen = [(0, 1.0, 2.0), (8, 0.5, 1.0), (12, 1.0, 0.5)]
    quiet, noisy = ends(model(seen)), ends(model(seen, noise=0.3))
    assert (noisy.sd > quiet.sd).all()
    assert noisy.sd[12] >= 0.3


def test_what_earlier_sweeps_expect_counts_until_it_is_contradicted():
    """Before anything else says which is better, and less after."""
    expected = np.linspace(1.0, -1.0, 17)
    known = [(0, 0.2, 1.0), (16, 0.2, 1.0)]
    belief = ends(model([(8, 0.2, 1.0)], expected=expected))
    assert belief.mean[16] < belief.mean[0]
    against = [(place, 1.0, place / 8) for place in range(0, 17, 2)]  # the other way round
    contradicted = ends(model([*known, *against], expected=expected))
    assert contradicted.mean[15] > contradicted.mean[1]


def test_a_learning_rate_is_known_by_its_name():
    """Wherever it is nested; its warm-up is another thing."""
    assert all(is_rate(name) for name in ("lr", "optimizer/lr", "train.learning_rate"))
    assert not any(is_rate(name) for name in ("lr_warmup", "learning_rate_warmup_steps", "rank"))


def test_constant_configurations_and_one_trial_are_no_trouble():
    """There is nothing to tell them apart by."""
    made = JointModel()
    seen = Observations(np.array([0]), np.array([0.5]), np.array([0.0]), np.zeros(1))
    made.condition(points_of([{"lr": 1.0}] * 3), seen, 0.0)
    belief = made.at(np.arange(3), np.ones(3))
    assert np.isfinite(belief.mean).all() and (belief.sd > 0).all()


def test_weights_are_fitted_and_come_back():
    """What matters more than was thought weighs more; a restored model begins there."""
    configs = [{"lr": 1e-3, "depth": i % 8, "x": (i * 5) % 7} for i in range(40)]
    ends_at = [abs((i % 8) - 3) / 2 for i in range(40)]
    seen = Observations(np.arange(40), np.ones(40), np.array(ends_at), np.zeros(40))
    made = JointModel()
    made.condition(points_of(configs), seen, 0.0)
    assert made.fitted == 40
    assert made.weights["depth"] > made.weights.get("x", 0.12)
    again = JointModel()
    again.recall(made.dump())
    assert again.dump() == made.dump()
    again.recall([])  # of a scheduler that has no such model
    assert again.dump() == made.dump()


def test_surprise_is_what_leaving_each_late_trial_out_finds():
    """By refitting without its two later scores; trials at their beginning do not count."""
    dice = np.random.default_rng(0)
    seen = [
        (place, progress, float(dice.normal()))
        for place, last in ((0, 1.0), (5, 0.6), (9, 1.0), (12, 0.2))
        for progress in (last / 4, last / 2, last)
    ]
    made = model(seen, noise=0.1)
    squares = []
    for place, last in ((0, 1.0), (5, 0.6), (9, 1.0)):
        rest = model([row for row in seen if row[0] != place or row[1] == last / 4], noise=0.1)
        rest._middle, rest._spread = made._middle, made._spread
        rest._values = np.array(
            [row[2] for row in sorted(seen) if row[0] != place or row[1] == last / 4]
        )
        rest._values = (rest._values - made._middle) / UNIT - rest._mean(
            rest._seen.trial, rest._seen.progress
        )
        rest._solved = cho_solve((rest._root, True), rest._values)
        belief = rest.at(np.array([place]), np.array([last]))
        score = next(row[2] for row in seen if row[:2] == (place, last))
        variance = belief.sd[0] ** 2 - 0.1**2 + made._spread * (UNIT**2 * NOISE + 0.1**2)
        squares.append((score - belief.mean[0]) ** 2 / variance)
    assert made.surprise == pytest.approx((4 + sum(squares)) / 7)


def test_ends_that_nothing_foretold_are_a_surprise():
    """Trials that were alike for half of the way and then came apart."""
    early = [(place, p, 1.0) for place in range(8) for p in (0.25, 0.5)]
    alike = [(place, 1.0, 0.6) for place in range(8)]
    apart = [(place, 1.0, 0.6 + (-1) ** place * (1 + place)) for place in range(8)]
    assert model([*early, *alike]).surprise < 1
    assert model([*early, *apart]).surprise > 3
