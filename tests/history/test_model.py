"""The process over several sweeps: what holds in all of them, and how sure it is of that."""

import numpy as np
import pytest

from tune_stoppers.history.model import MOST_USED, HistoryModel, _fair


def sweep(score, count=40, seed=0):
    """Trials at random learning rates and widths, their scores a function of these."""
    rng = np.random.default_rng(seed)
    configs = [{"lr": 10 ** rng.uniform(-5, -1), "width": rng.uniform()} for _ in range(count)]
    scores = np.array([score(np.log10(config["lr"]), config["width"]) for config in configs])
    return configs, (scores - np.median(scores)) / scores.std(), np.ones(count)


def bowl(lr, width):
    return (lr + 3) ** 2


def test_it_expects_what_earlier_sweeps_saw():
    """A learning rate in the middle does well, whatever the width."""
    model = HistoryModel([sweep(bowl, seed=1), sweep(bowl, seed=2)])
    good, bad, wide = model.beliefs(
        [{"lr": 1e-3, "width": 0.5}, {"lr": 1e-5, "width": 0.5}, {"lr": 1e-3, "width": 0.9}]
    ).mean
    assert good < -0.5 < 0.5 < bad
    assert wide == pytest.approx(good, abs=0.3)


def test_it_is_less_sure_where_sweeps_disagree_and_where_none_was():
    """Of two sweeps that contradict one another nothing is expected with confidence."""
    asked = [{"lr": 1e-3, "width": 0.5}, {"lr": 1e3, "width": 0.5}]
    alike = HistoryModel([sweep(bowl, seed=1), sweep(bowl, seed=2)]).beliefs(asked)
    other = HistoryModel([sweep(bowl, seed=1), sweep(lambda *x: -bowl(*x), seed=2)]).beliefs(asked)
    assert other.sd[0] > 1.5 * alike.sd[0]
    assert abs(other.mean[0]) < 0.5 * abs(alike.mean[0])
    assert alike.sd[1] > 1.5 * alike.sd[0]


def test_what_one_sweep_saw_is_not_certain_in_another():
    """Where it tried the very same configurations, the next sweep may still turn out otherwise."""
    configs, scores, done = sweep(bowl, seed=1)
    model = HistoryModel([(configs, scores, done)])
    belief = model.beliefs(configs)
    assert np.corrcoef(belief.mean, scores)[0, 1] > 0.9
    assert (belief.sd > 0.3).all()


def test_each_sweep_brings_its_share():
    """Small ones all, large ones as much as one another."""
    assert _fair([60, 1000, 1000], 1500) == 720
    assert _fair([10, 20], 1500) >= 20
    assert _fair([1000] * 30, MOST_USED) == 50


def test_what_is_chosen_is_promising_and_not_all_the_same():
    """Of near copies of the best configuration one is enough, where others may do as well."""
    model = HistoryModel([sweep(bowl, 8, seed=1), sweep(bowl, 8, seed=2)])
    configs = [{"lr": 1e-3 * (1 + k / 100), "width": 0.5} for k in range(10)]
    configs += [{"lr": 2e-3, "width": 0.1}, {"lr": 5e-4, "width": 0.9}, {"lr": 1e-5, "width": 0.5}]
    chosen = model.choose(configs, 3)
    assert sum(place < 10 for place in chosen) < 3
    assert 12 not in chosen
    assert sorted(model.choose(configs, 99)) == list(range(13))


def test_what_was_never_tried_comes_last():
    """A learning rate far beyond all is uncertain, and no suggestion while there are others."""
    model = HistoryModel([sweep(bowl, 8, seed=1), sweep(bowl, 8, seed=2)])
    configs = [{"lr": 50.0, "width": 0.5}, *({"lr": 10.0**-k, "width": 0.5} for k in (4, 3, 2))]
    assert model.choose(configs, 4)[-1] == 0


def test_a_constant_history_has_nothing_to_say():
    """No hyperparameter differs: what is expected is the same everywhere."""
    configs = [{"lr": 1.0}] * 5
    model = HistoryModel([(configs, np.linspace(-1, 1, 5), np.ones(5))])
    mean = model.beliefs([{"lr": 1.0}, {"lr": 5.0}]).mean
    assert mean[0] == mean[1]
