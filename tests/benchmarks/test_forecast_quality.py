"""The benchmark of forecasts looks at no later trial and no later report, and scores rightly."""

import math

import numpy as np
import pandas as pd
import pytest

from benchmarks.forecast_quality import (
    LAST,
    OURS,
    POWER,
    Trial,
    cut,
    judge,
    main,
    power_law,
    scored,
    trials_of,
)
from tune_stoppers.forecast import Forecast
from tune_stoppers.recorded.sweep import Sweep


def sweep_of(count=14, length=20, name="taskset_a", change=None):
    dice = np.random.default_rng(0)
    rows = []
    for number in range(count):
        losses = dice.uniform(0.2, 1) + dice.uniform(0.5, 1.5) * np.arange(1, length + 1) ** -0.7
        if change is not None:
            losses = change(number, losses)
        rows += [
            {"trial_id": f"t{number}", "training_iteration": t, "accuracy": -loss}
            for t, loss in enumerate(losses, start=1)
        ]
    return Sweep.from_frame(pd.DataFrame(rows), metric="accuracy", mode="max", name=name)


def of(rows, trial, at):
    """What was forecast of one trial at one place, by forecaster."""
    return {r["forecaster"]: r for r in rows if r["trial"] == trial and r["at"] == at}


def test_no_forecast_knows_a_later_trial():
    """Cutting the sweep behind a trial changes nothing of what was said of it."""
    sweep = sweep_of(8)
    trials = trials_of(sweep, 8, seed=0)
    unit = [r["error"] for r in judge(sweep, trials, False) if r["forecaster"] == OURS]
    again = [trials[-1], *trials[:-1]]
    moved = [r["error"] for r in judge(sweep, again, False) if r["forecaster"] == OURS]
    assert len(unit) == len(moved) == 8 * 4
    assert unit[:4] != moved[:4]
    few = {r["trial"] for r in judge(sweep, trials[:5], False)}
    assert few == set(range(5))


def test_the_persistent_value_misses_by_what_is_still_gained():
    """In units of the sweep's spread; the other two do better on smooth curves."""
    sweep = sweep_of()
    trials = trials_of(sweep, 14, seed=0)
    rows = judge(sweep, trials, False)
    bests = [trial.losses.min() for trial in trials]
    unit = np.median(bests) - min(bests)
    at = of(rows, 12, 0.2)
    losses = trials[12].losses
    assert at[LAST]["error"] == pytest.approx((losses[3] - losses[4:].min()) / unit, rel=1e-3)
    assert at[OURS]["error"] < at[LAST]["error"]
    assert at[POWER]["error"] < at[LAST]["error"]
    assert at[OURS]["used"] == 1.0
    assert of(rows, 2, 0.2)[OURS]["used"] == 0.0


def test_a_power_law_is_found():
    """Its value at the end of training, from the first fifth."""
    curve = 0.3 + np.arange(1, 101) ** -0.5
    assert power_law(curve[:20], 0.2).quantile(0.5) == pytest.approx(curve[-1], abs=0.01)


def test_scores_are_of_the_distribution():
    """A value in the middle is in both intervals; one far out in neither."""
    sure = Forecast(np.zeros(1), np.ones(1), np.ones(1))
    near, far = scored(sure, 0.1, 0.0, 1.0), scored(sure, 9.0, 0.0, 1.0)
    assert (near["in 50 %"], near["in 90 %"]) == (1.0, 1.0)
    assert (far["in 50 %"], far["in 90 %"], far["error"]) == (0.0, 0.0, pytest.approx(9.0))
    assert near["loglik"] == pytest.approx(
        math.log(0.98 * sure.density(0.1) + 0.02 / math.pi / 1.01)
    )


def test_the_worse_half_is_cut_and_still_scored():
    """As a pruner would leave it to the others; the protocol knows the whole curve."""
    sweep = sweep_of(10)
    trials = trials_of(sweep, 10, seed=0)
    stopped = [cut(trial, trials[:k]) for k, trial in enumerate(trials)]
    assert not any(stopped[:4])
    assert 1 <= sum(stopped) <= 5
    rows = judge(sweep, trials, True)
    assert {r["trial"] for r in rows} == set(range(10))
    assert rows != judge(sweep, trials, False)


def test_values_that_are_not_finite_are_left_out():
    """A place where the newest loss is not finite, or none is left, is no place for a forecast."""
    nan, one = math.nan, 1.0
    trial = Trial("a", np.array([0.1, 0.3, 0.5, 1.0]), np.array([one, nan, one, nan]))
    assert trial.split(0.4) is None
    assert trial.split(0.8) is None
    before, after = trial.split(0.2)
    assert (list(before), list(after)) == ([one], [one])


def test_it_runs_from_end_to_end(tmp_path):
    """And writes its section in place of its last version."""
    sweep_of(length=10).to_parquet(tmp_path / "taskset_a.parquet")
    out = tmp_path / "RESULTS.md"
    out.write_text("## Other\n")
    for _ in range(2):
        assert main([str(tmp_path), "--quick", "--out", str(out)]) == 0
    text = out.read_text()
    assert text.count("# Forecast quality") == text.count("## Other") == 1
    assert "| taskset | Forecaster |" in text
    assert main([str(tmp_path / "none")]) == 2
