"""`ForecastStopper`: one record for all trials, in the metric's own direction, across pickles."""

import pickle

import numpy as np
import pytest
from ray import tune

from tests.forecast.test_forecaster import falling
from tests.tune.schedulers.test_auto import curves
from tune_stoppers import PatienceStopper
from tune_stoppers.journal.lines import read_journal
from tune_stoppers.tune.stoppers.forecast import ForecastStopper


def run(stopper, trial_id, values, until=None):
    """The step at which the stopper ends the trial; None: at none."""
    last = len(values)
    for step, value in enumerate(values[:until], start=1):
        result = {"training_iteration": step, "x": float(value), "done": step == last}
        if stopper(trial_id, result):
            return step
    return None


def swept(stopper, sign=1, count=8, seed=0):
    """Let `count` trials run to the end, and give back the dice."""
    dice = np.random.default_rng(seed)
    for number in range(count):
        run(stopper, f"t{number}", sign * falling(dice))
    return dice


@pytest.mark.parametrize(("mode", "sign"), [("min", 1), ("max", -1)])
def test_a_hopeless_trial_stops_in_either_direction(mode, sign):
    """Sooner than the horizon, with a reason in the metric's own units."""
    stopper = ForecastStopper("x", mode, max_t=20)
    swept(stopper, sign)
    values = sign * (2 + np.arange(1, 21) ** -0.7)
    step = run(stopper, "bad", values)
    assert step is not None
    assert step < 8
    result = {"training_iteration": step, "x": values[step - 1]}
    assert stopper("bad", result)
    assert "bad" not in stopper.record.forecaster.dump()["live"]
    assert f"{values[step - 1]:.6g}; its best to come" in result["stop_reason"]
    assert run(stopper, "good", sign * (0.1 + np.arange(1, 21) ** -0.7), until=19) is None


def test_a_target_is_in_the_metrics_own_units():
    """For "max", above it."""
    stopper = ForecastStopper("x", "max", max_t=20, target=5.0)
    assert stopper.rule.target == -5.0
    swept(stopper, -1)
    step = run(stopper, "a", -falling(np.random.default_rng(9)))
    assert step is not None
    assert step < 8


def test_pickling_keeps_what_all_trials_share():
    """Tune pickles stoppers with the experiment: both go on with the same decisions."""
    stopper = ForecastStopper("x", "min", max_t=20)
    dice = swept(stopper)
    assert run(stopper, "live", 0.3 + np.arange(1, 21) ** -0.7, until=4) is None
    again = pickle.loads(pickle.dumps(stopper))
    for number in range(8):
        values = falling(dice)
        assert run(again, f"n{number}", values) == run(stopper, f"n{number}", values)
    run(again, "live", [9.0] * 19, until=12)
    assert again.record.judged["live"] != stopper.record.judged["live"]


def test_a_trial_that_ends_by_itself_is_whole():
    """Also before the horizon: what it reached is all there was."""
    stopper = ForecastStopper("x", "min", max_t=100)
    run(stopper, "short", falling(np.random.default_rng(0), length=7))
    past = stopper.record.forecaster.past
    assert list(past.trials) == ["short"]


def test_a_dry_run_stops_nothing_and_keeps_learning():
    """The trial goes on as if it had never been judged; its result says what would have been."""
    stopper = ForecastStopper("x", "min", max_t=20, dry_run=True)
    swept(stopper)
    assert run(stopper, "bad", 2 + np.arange(1, 21) ** -0.7) is None
    assert "bad" in stopper.record.forecaster.past.trials


def test_it_combines_with_others(tmp_path):
    """As any stopper; its decisions are in the journal."""
    journal = tmp_path / "decisions.jsonl"
    either = ForecastStopper("x", "min", max_t=20, journal=journal) | PatienceStopper(
        "x", "min", patience=3
    )
    assert run(either, "flat", [1.0] * 20) == 4
    assert [line["step"] for line in read_journal(journal) if "action" in line] == [1, 2, 3, 4]


def test_a_report_without_the_metric_is_neutral():
    """Where that is allowed: a training log between two evaluations."""
    stopper = ForecastStopper("x", "min", max_t=20, on_missing="skip")
    assert not stopper("a", {"training_iteration": 1, "y": 1.0})
    assert not stopper("a", {"training_iteration": 2, "x": 1.0})
    assert stopper.record.forecaster.dump()["live"]["a"][1] == [1.0]


def curve(config):
    """Reports 1 to 20: falls to a level that the configuration sets."""
    for step in range(1, 21):
        tune.report({"x": config["level"] + step**-0.7})


@pytest.mark.usefixtures("ray_session")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")
def test_in_a_real_sweep_the_late_and_bad_are_stopped(tmp_path):
    """The first run to the end, and teach it; then those that cannot win are ended early."""
    levels = [0.5, 0.3, 0.6, 0.4, 2.5]
    results = tune.Tuner(
        curve,
        param_space={"level": tune.grid_search(levels)},
        tune_config=tune.TuneConfig(max_concurrent_trials=1, reuse_actors=True),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=str(tmp_path),
            stop=ForecastStopper("x", "min", max_t=20),
            verbose=0,
        ),
    ).fit()
    ran = {r.metrics["config"]["level"]: r.metrics["training_iteration"] for r in results}
    assert [ran[level] for level in levels[:4]] == [20] * 4
    assert ran[2.5] < 12
    stopped = next(r for r in results if r.metrics["config"]["level"] == 2.5)
    assert "ForecastStopper: " in stopped.metrics["stop_reason"]
    assert "with probability 0.00" in stopped.metrics["stop_reason"]


def test_a_path_is_no_history_of_it() -> None:
    """It takes recorded sweeps, one or several, and the error shows what was given."""
    with pytest.raises(TypeError, match=r"Sweep objects, got '~/ray_results'"):
        ForecastStopper("loss", "min", max_t=9, history="~/ray_results")
    sweep = curves(8)
    one = ForecastStopper("loss", "min", max_t=9, history=sweep)
    assert one.rule.history == (sweep,)
