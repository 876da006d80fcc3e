"""The forecaster learns from the trials that have ended, and knows when it has not."""

import json
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from tune_stoppers.forecast import Forecaster
from tune_stoppers.journal.lines import plain


def falling(dice, length=20, noise=0.0):
    """A curve that falls to a level of its own."""
    level, drop = dice.uniform(0.2, 1), dice.uniform(0.5, 1.5)
    times = np.arange(1, length + 1)
    return level + drop * times**-0.7 + noise * dice.normal(size=length)


def watch(forecaster, trial_id, losses, until=None):
    for t, loss in enumerate(losses[:until], start=1):
        forecaster.observe(trial_id, t, float(loss))


def taught(count=30, curve=falling, seed=0, max_t=20, **options):
    """A forecaster that has seen `count` trials to the end, and the dice for more."""
    dice, forecaster = np.random.default_rng(seed), Forecaster(max_t, **options)
    for number in range(count):
        watch(forecaster, f"t{number}", curve(dice))
        forecaster.ended(f"t{number}")
    return forecaster, dice


def test_it_forecasts_how_trials_go_on():
    """Far better than the last value, and the 90 % intervals hold as often as they say."""
    forecaster, dice = taught()
    errors, stays, held = [], [], []
    for number in range(40):
        losses = falling(dice)
        watch(forecaster, f"new{number}", losses, until=6)
        forecast = forecaster.forecast(f"new{number}")
        assert forecast.calibrated
        errors.append(abs(forecast.quantile(0.5) - losses[6:].min()))
        stays.append(abs(losses[5] - losses[6:].min()))
        held.append(forecast.quantile(0.05) < losses[6:].min() < forecast.quantile(0.95))
    assert np.median(errors) < 0.25 * np.median(stays)
    assert np.mean(held) > 0.85


def test_a_trial_that_never_improves_where_none_does_is_hopeless():
    """Curves that are flat from the fifth report on: no later best is expected."""

    def flat_soon(dice):
        level = dice.uniform(1, 2)
        return level + np.r_[0.5:0:-0.1, [0.0] * 15] + 1e-3 * dice.normal(size=20)

    forecaster, _ = taught(curve=flat_soon)
    watch(forecaster, "new", [2.0, 1.9, 1.8, 1.7, 1.6, 1.5, 1.5, 1.5])
    forecast = forecaster.forecast("new")
    assert forecast.probability_below(1.0) < 0.05
    assert forecast.probability_below(1.6) > 0.9


def test_late_drops_are_expected_once_they_were_seen():
    """Where every trial falls in the last quarter, a plateau is no reason to give up."""

    def late(dice):
        level = dice.uniform(1, 2)
        return np.r_[[level] * 15, [level - 0.8] * 5] + 0.01 * dice.normal(size=20)

    forecaster, _ = taught(curve=late)
    watch(forecaster, "new", [1.5] * 10)
    forecast = forecaster.forecast("new")
    assert forecast.calibrated
    assert forecast.quantile(0.5) == pytest.approx(0.7, abs=0.1)


def test_nothing_is_calibrated_before_four_trials_have_ended():
    """However well they agree."""
    for count, expected in ((3, False), (8, True)):
        forecaster, dice = taught(count)
        watch(forecaster, "new", falling(dice), until=6)
        assert forecaster.forecast("new").calibrated is expected


def test_it_does_not_claim_what_persistence_does_better():
    """Curves whose future best is their first value, but for an outlier: the last value stays."""

    def constant(dice):
        return np.full(20, dice.choice([1.0, 2.0, 3.0, 4.0])) + 1e-3 * np.arange(20)

    forecaster, dice = taught(curve=constant)
    watch(forecaster, "new", constant(dice), until=6)
    assert forecaster.forecast("new").calibrated is False


def test_the_first_trial_is_forecast_from_the_prior():
    """It may stay where it is, and it may go on falling; it is not calibrated."""
    forecaster = Forecaster(100)
    watch(forecaster, "a", [2.0, 1.6, 1.4, 1.3, 1.25])
    forecast = forecaster.forecast("a")
    assert not forecast.calibrated
    assert forecast.quantile(0.05) < 1.1 < 1.2 < forecast.quantile(0.95)


def test_repeats_change_nothing_and_a_rewind_forgets():
    """A report at the time last seen is left out; one at an earlier time starts from there."""
    forecaster = Forecaster(20)
    watch(forecaster, "a", [5.0, 4.0, 3.0])
    before = forecaster.dump()
    forecaster.observe("a", 3, 0.0)
    assert forecaster.dump() == before
    forecaster.observe("a", 2, 4.5)
    other = Forecaster(20)
    watch(other, "a", [5.0, 4.5])
    assert forecaster.dump() == other.dump()


def test_a_loss_that_is_not_finite_is_no_improvement():
    """It counts as the trial's worst so far; alone it is no evidence at all."""
    forecaster = Forecaster(20)
    forecaster.observe("a", 1, math.nan)
    with pytest.raises(KeyError, match="no finite loss"):
        forecaster.forecast("a")
    for t, loss in ((2, 5.0), (3, 1.0), (4, math.inf), (5, math.nan)):
        forecaster.observe("a", t, loss)
    other = Forecaster(20)
    for t, loss in ((2, 5.0), (3, 1.0), (4, 5.0), (5, 5.0)):
        other.observe("a", t, loss)
    assert forecaster.dump() == other.dump()


def test_losses_of_any_size_are_forecast():
    """Up to the largest floats, without a warning; pytest makes errors of those."""
    forecaster = Forecaster(20)
    for number, size in enumerate([1e300, 1e-300, 0.0, -1e308, 1.0, 1e18, 1.0, 1.0]):
        watch(forecaster, f"t{number}", [size, size / 2, size, size / 3] + [size / 4] * 16)
        forecaster.ended(f"t{number}")
    watch(forecaster, "new", [1e308, 1e307, 1.0, 1e306])
    forecast = forecaster.forecast("new")
    assert 0 <= forecast.probability_below(0.0) <= 1


def test_trials_that_are_all_the_same_are_forecast():
    """Without a spread to go by, and without a division by it."""
    forecaster, _ = taught(6, lambda dice: np.ones(20))
    watch(forecaster, "new", np.ones(8))
    assert forecaster.forecast("new").probability_below(0.5) < 0.05


def test_units_do_not_matter():
    """Losses times 1000 plus 5 give the same probabilities."""

    def scaled(dice):
        return 1000 * falling(dice) + 5

    ours, dice = taught(12)
    theirs, _ = taught(12, scaled)
    losses = falling(dice)
    watch(ours, "new", losses, until=6)
    watch(theirs, "new", 1000 * losses + 5, until=6)
    target = float(losses[6:].min())
    chance = ours.forecast("new").probability_below(target)
    again = theirs.forecast("new").probability_below(1000 * target + 5)
    assert again == pytest.approx(chance, abs=1e-3)


def test_trials_cut_short_are_no_evidence():
    """What they would have become is not known; one that is said to be whole is evidence."""
    forecaster = Forecaster(20)
    watch(forecaster, "a", [3.0, 2.0, 1.0])
    forecaster.ended("a")
    assert not forecaster.past.trials
    with pytest.raises(KeyError, match="'a' is not running"):
        forecaster.forecast("a")
    watch(forecaster, "b", [3.0, 2.0, 1.0])
    forecaster.ended("b", whole=True)
    assert list(forecaster.past.trials) == ["b"]


def test_a_trial_that_comes_back_is_no_longer_evidence():
    """After a restore: until it has ended again."""
    forecaster, _ = taught(8)
    forecaster.observe("t3", 20, 7.0)  # its last report once more
    assert "t3" in forecaster.past.trials
    forecaster.observe("t3", 10, 0.9)
    assert "t3" not in forecaster.past.trials
    assert forecaster.forecast("t3").quantile(0.5) < 0.95
    forecaster.forget("t5")
    assert "t5" not in forecaster.past.trials


def test_state_is_bounded_and_survives_json_and_pickle(monkeypatch):
    """Later forecasts are the same to the last digit, and so is the state."""
    monkeypatch.setattr("tune_stoppers.forecast.ended_trials.CAPACITY", 24)
    forecaster, dice = taught(60, lambda dice: falling(dice, 5), max_t=5)
    assert 24 <= len(forecaster.past.trials) <= 24 + 0.25 * 60
    watch(forecaster, "live", falling(dice, 5), until=2)
    text = json.dumps(plain(forecaster.dump()), allow_nan=False)
    loaded = Forecaster.load(5, json.loads(text))
    pickled = pickle.loads(pickle.dumps(forecaster))
    for number in range(20):
        losses = falling(dice, 5)
        for each in (forecaster, loaded, pickled):
            watch(each, f"n{number}", losses, until=3)
        first, *others = (each.forecast(f"n{number}") for each in (forecaster, loaded, pickled))
        assert all(other.quantile(0.3) == first.quantile(0.3) for other in others)
        assert all(other.calibrated == first.calibrated for other in others)
        for each in (forecaster, loaded, pickled):
            each.ended(f"n{number}", whole=number % 2 == 0)
    assert loaded.dump() == forecaster.dump() == pickled.dump()


def recorded(count, seed, sign=1):
    """What a recorded sweep looks like to the forecaster."""
    dice = np.random.default_rng(seed)
    curves = [
        SimpleNamespace(
            trial_id=f"h{number}",
            iterations=np.arange(1, 21),
            metrics={"x": sign * 7 * falling(dice)},
        )
        for number in range(count)
    ]
    mode = "max" if sign < 0 else "min"
    return SimpleNamespace(curves=curves, max_t=20, objective=lambda: ("x", mode))


@pytest.mark.parametrize("sign", [1, -1])
def test_earlier_sweeps_help_the_first_trials(sign):
    """Whatever their unit and direction; but they alone are no calibration."""
    dice = np.random.default_rng(5)
    alone, helped = Forecaster(20), Forecaster(20, [recorded(300, 9, sign)])
    assert sum(len(past.trials) for past in helped._history.pasts) <= 256
    gains = []
    for number in range(20):
        losses = falling(dice)
        for each in (alone, helped):
            watch(each, f"n{number}", losses, until=6)
        future = float(losses[6:].min())
        forecasts = [each.forecast(f"n{number}") for each in (alone, helped)]
        gains.append(np.log(forecasts[1].density(future) / forecasts[0].density(future)))
        assert not forecasts[1].calibrated
    assert np.mean(gains) > 0.3


def test_what_is_no_sweep_is_refused_as_history():
    """With what was given."""
    with pytest.raises(TypeError, match=r"history takes recorded sweeps, .* got 'sweep.parquet'"):
        Forecaster(20, ["sweep.parquet"])


def test_trials_are_compared_at_equal_learning_rates():
    """Half decay early and have no more to come; the others, alike but for that, have."""
    dice, forecaster = np.random.default_rng(2), Forecaster(20)

    def run(name, early, until=20):
        level = dice.uniform(1, 1.2)
        for t in range(1, until + 1):
            fallen = t > (3 if early else 15)
            loss = level - 0.5 * fallen + (0.5 if early else 0.0) + 0.01 * dice.normal()
            forecaster.observe(name, t, loss, lr=0.1 if fallen else 1.0)

    for number in range(30):
        run(f"t{number}", early=number % 2 == 0)
        forecaster.ended(f"t{number}")
    run("early", True, until=10)
    run("late", False, until=10)
    assert forecaster.forecast("early").quantile(0.3) > 0.9
    assert forecaster.forecast("late").quantile(0.7) < 0.8


@pytest.mark.parametrize("max_t", [0, -1, math.nan, "20"])
def test_a_horizon_that_is_none_is_refused(max_t):
    """With the value given."""
    with pytest.raises((TypeError, ValueError), match="max_t must be"):
        Forecaster(max_t)
