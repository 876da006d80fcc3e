"""Optuna's pruners under the replay decide as they do in Optuna."""

import copy
import math

import numpy as np
import optuna
import pandas as pd
import pytest

from tune_stoppers.backtest.optuna_pruner import OptunaPrunerScheduler
from tune_stoppers.backtest.replay import replay
from tune_stoppers.recorded.sweep import Sweep

PRUNERS = {
    "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=3),
    "percentile": lambda: optuna.pruners.PercentilePruner(25.0, n_startup_trials=2),
    "halving": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
    "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=1, max_resource=8),
    "none": optuna.pruners.NopPruner,
}


def curves(trials: int = 30, length: int = 8) -> dict[str, list[float]]:
    dice = np.random.default_rng(11)
    shape = dice.random((trials, 1)) + dice.random((trials, length)) / np.arange(1, length + 1)
    named = {f"t{i:02d}": row.tolist() for i, row in enumerate(shape)}
    named["t03"][2:] = [math.nan] * (length - 2)  # diverged
    return named


def recorded(named: dict[str, list[float]], mode: str = "min") -> Sweep:
    rows = [
        {"trial_id": name, "training_iteration": t, "loss": value if mode == "min" else -value}
        for name, values in named.items()
        for t, value in enumerate(values, start=1)
    ]
    return Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode=mode)


def lengths_in_optuna(
    named: dict[str, list[float]], pruner: optuna.pruners.BasePruner
) -> list[int]:
    """How far each trial gets in Optuna's own loop, one after the other."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(study_name="tune_stoppers", pruner=pruner)
    lengths = []
    for values in named.values():
        trial = study.ask()
        for step, value in enumerate(values, start=1):
            trial.report(value, step)
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, value if math.isfinite(value) else math.inf)
        lengths.append(step)
    return lengths


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("name", PRUNERS)
def test_it_decides_as_optuna_does(name, mode):
    """Trial by trial on one worker, for either mode."""
    scheduler = OptunaPrunerScheduler(PRUNERS[name]())
    result = replay(recorded(curves(), mode), scheduler, workers=1, order="recorded")
    assert result.trials["reports"].tolist() == lengths_in_optuna(curves(), PRUNERS[name]())
    assert name == "none" or result.savings > 0.1


def test_it_is_quiet_and_leaves_optunas_verbosity_alone(capfd):
    """No line for each study and trial."""
    optuna.logging.set_verbosity(optuna.logging.INFO)
    replay(recorded(curves()), OptunaPrunerScheduler(PRUNERS["median"]()))
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
    assert capfd.readouterr() == ("", "")


def test_a_copy_goes_its_own_way():
    """A used scheduler can be copied; a given one is not changed by a replay."""
    scheduler = OptunaPrunerScheduler(PRUNERS["median"]())
    first = replay(recorded(curves()), scheduler, budget=5.0)
    assert scheduler.debug_string() == "MedianPruner: 0 trials under way"
    used = copy.deepcopy(first.cluster._scheduler)
    assert used.debug_string() == "MedianPruner: 8 trials under way"
    again = replay(recorded(curves()), scheduler, budget=5.0)
    pd.testing.assert_frame_equal(first.journal, again.journal)


def test_a_crash_is_no_evidence():
    """Trials that die and are tried again end as in any other replay."""
    options = {"failure_rate": 0.1, "max_failures": -1, "checkpoint_every": 1}
    result = replay(recorded(curves()), OptunaPrunerScheduler(PRUNERS["median"]()), **options)
    assert set(result.trials["status"]) == {"TERMINATED"}
    assert result.trials["failures"].sum() > 0


def test_what_it_cannot_take_is_refused():
    """No pruner, an unknown mode, a step that is no whole number, two metrics."""
    with pytest.raises(TypeError, match="pruner must be an Optuna pruner, got str"):
        OptunaPrunerScheduler("median")
    with pytest.raises(ValueError, match="mode"):
        OptunaPrunerScheduler(PRUNERS["median"](), mode="best")
    halves = OptunaPrunerScheduler(PRUNERS["median"](), time_attr="loss")
    with pytest.raises(ValueError, match="whole numbers, got loss="):
        replay(recorded(curves()), halves)
    given = OptunaPrunerScheduler(PRUNERS["median"](), metric="loss", mode="min")
    assert given.set_search_properties("loss", "min") is False
