"""How much of the ranking of trials goes with a hyperparameter."""

import math

import numpy as np
import pytest

from tune_stoppers import example_path
from tune_stoppers.backtest.replay import replay
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.report import replay_story
from tune_stoppers.report.data.importance import BINS, FEWEST, by_chance, importance


def drawn(trials, seed=0):
    return np.random.default_rng(seed).random(trials).tolist()


@pytest.mark.parametrize("trials", [12, 30, 144])
def test_a_valley_counts_as_a_slope_does(trials):
    """A learning rate has an optimum: both of its sides are bad."""
    rates, noise = drawn(trials), drawn(trials, 1)
    valley = [(rate - 0.5) ** 2 + 0.01 * n for rate, n in zip(rates, noise, strict=True)]
    assert importance(rates, rates, numeric=True) > 0.85
    assert importance(rates, valley, numeric=True) > 0.7
    assert importance(noise, valley, numeric=True) < by_chance(trials)


def test_only_ranks_count():
    """Neither the scale of the values nor that of the losses; infinity is the worst."""
    rates, losses = drawn(40), drawn(40, 1)
    found = importance(rates, losses, numeric=True)
    scaled = importance(
        [10**rate for rate in rates], [math.exp(loss) for loss in losses], numeric=True
    )
    worst = [math.inf if loss == max(losses) else loss for loss in losses]
    assert found == scaled == importance(rates, worst, numeric=True)


def test_diverged_trials_tell_of_the_value_that_made_them_diverge():
    """Half of the trials, those of large rates, have no finite loss."""
    rates = drawn(40)
    losses = [math.inf if rate > 0.5 else 1.0 for rate in rates]
    assert importance(rates, losses, numeric=True) > 0.8
    assert importance(drawn(40, 1), losses, numeric=True) < by_chance(40)


def test_categories_by_hand():
    """Two groups of ranks 1 to 5 and 6 to 10: η² = 62.5 / 82.5, corrected by 9 / 8."""
    names, losses = ["x"] * 5 + ["y"] * 5, [float(loss) for loss in range(10)]
    expected = math.sqrt(1 - 20 / 82.5 * 9 / 8)
    assert importance(names, losses, numeric=False) == pytest.approx(expected)
    assert importance([1.0] * 5 + [2.0] * 5, losses, numeric=True) == pytest.approx(expected)


@pytest.mark.parametrize("numeric", [True, False])
def test_nothing_explains_equal_losses_and_a_constant_explains_nothing(numeric):
    """Zero instead of a division by it."""
    values = [1.0, 2.0] * 10
    assert importance(values, [1.0] * 20, numeric=numeric) == 0
    assert importance([1.0] * 20, drawn(20), numeric=numeric) == 0


def test_missing_values_and_missing_results_are_left_out():
    """A hyperparameter of some trials only, and trials that never trained."""
    rates, losses = drawn(20), drawn(20, 1)
    more = importance([*rates, None, 0.5], [*losses, 0.0, math.nan], numeric=True)
    assert more == importance(rates, losses, numeric=True)


def test_too_few_trials_are_not_known():
    """Also if enough ran, but without the value; and if each has a category of its own."""
    few = FEWEST - 1
    assert math.isnan(importance(drawn(few), drawn(few), numeric=True))
    assert math.isnan(importance([*drawn(few), None], drawn(FEWEST), numeric=True))
    assert not math.isnan(importance(drawn(FEWEST), drawn(FEWEST), numeric=True))
    assert math.isnan(importance([str(n) for n in range(20)], drawn(20), numeric=False))
    assert math.isnan(importance([], [], numeric=True))


@pytest.mark.parametrize("trials", [10, 20, 60])
def test_chance_alone_seldom_exceeds_what_is_said(trials):
    """About one in twenty sweeps, for numbers and for four categories; zero is not favoured."""
    for values, numeric in ((drawn(trials), True), ([str(n % 4) for n in range(trials)], False)):
        found = [importance(values, drawn(trials, seed), numeric=numeric) for seed in range(400)]
        assert 0.01 < np.mean([value > by_chance(trials) for value in found]) < 0.1
        assert np.mean([value == 0 for value in found]) > 0.4


def test_many_equal_numbers_stay_together():
    """Where one value is that of most trials, the groups are fewer, and nothing breaks."""
    values = [0.0] * 30 + [float(n) for n in range(1, BINS[1] + 5)]
    losses = drawn(len(values))
    assert 0 <= importance(values, losses, numeric=True) <= 1


def test_the_learning_rate_matters_most_in_our_own_example():
    """144 language models; |Spearman's rho| had put weight decay above it."""
    sweep = Sweep.from_parquet(example_path())
    story = replay_story(replay(sweep, workers=8))
    strengths = {p.name: story.strength(p) for p in story.swept}
    assert [p.name for p in story.swept][:3] == ["learning_rate", "optimizer", "weight_decay"]
    assert strengths["learning_rate"] > 2 * by_chance(len(story.trials))
    assert strengths["learning_rate"] > 2 * strengths["weight_decay"]
