"""Rules by name, built for a sweep."""

import pandas as pd
import pytest
from ray.tune.schedulers import ASHAScheduler
from ray.tune.stopper import Stopper

from tune_stoppers import BoundASHAScheduler, PatienceStopper
from tune_stoppers.backtest.named import build, kind_of, known
from tune_stoppers.core.per_trial import PerTrial
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.rules import Budget, Patience

ROWS = [{"trial_id": "a", "training_iteration": t, "score": 1.0} for t in (1, 2, 30)]
SWEEP = Sweep.from_frame(pd.DataFrame(ROWS), metric="score", mode="max")


def test_what_the_text_leaves_out_is_the_sweeps():
    """Metric, mode and max_t; what it says, holds."""
    stopper = build("PatienceStopper(patience=2)", SWEEP, "stopper")
    assert isinstance(stopper, PatienceStopper)
    assert not stopper("a", {"training_iteration": 1, "score": 1.0})
    assert build("BoundASHAScheduler", SWEEP, "scheduler").rule.max_t == 30
    assert build("BoundASHAScheduler(max_t=9)", SWEEP, "scheduler").rule.max_t == 9
    asha = build("ASHAScheduler(reduction_factor=2)", SWEEP, "scheduler")
    assert isinstance(asha, ASHAScheduler)
    assert asha.metric == "score"


def test_the_horizon_is_in_the_units_of_the_time():
    """A scheduler told to count steps, or progress, is not given the number of iterations."""
    rows = [
        {"trial_id": "a", "training_iteration": t, "step": 100 * t, "progress": t / 6, "score": 1.0}
        for t in range(1, 7)
    ]
    sweep = Sweep.from_frame(pd.DataFrame(rows), metric="score", mode="max")
    for name, horizon in (("step", 600), ("progress", 1), ("training_iteration", 6)):
        made = build(f"AutoScheduler(time_attr={name!r})", sweep, "scheduler")
        assert made.rule.max_t == horizon
    assert build("AutoScheduler(9, time_attr='step')", sweep, "scheduler").rule.max_t == 9


def test_rays_stoppers_combine_like_ours():
    """With one another, and with ours."""
    for text in (
        "MaximumIterationStopper(5) | TrialPlateauStopper(num_results=3)",
        "MaximumIterationStopper(5) & PatienceStopper()",
    ):
        assert isinstance(build(text, SWEEP, "stopper"), Stopper)
    either = build("MaximumIterationStopper(1) | PatienceStopper()", SWEEP, "stopper")
    assert either("a", {"training_iteration": 1, "score": 1.0})


def test_schedulers_are_told_from_stoppers():
    """By the first name, brackets aside."""
    assert kind_of("BoundASHAScheduler(max_t=3)") == "scheduler"
    assert kind_of(" ( PatienceStopper | DivergenceStopper)") == "stopper"
    assert kind_of("Nonsense") == "stopper"


def test_every_known_name_is_a_constructor_of_its_kind():
    """Ours come from the package's public names."""
    assert known("scheduler")["BoundASHAScheduler"] is BoundASHAScheduler
    assert known("stopper")["PatienceStopper"] is PatienceStopper
    assert "RuleStopper" not in known("stopper")
    assert not set(known("stopper")) & set(known("scheduler"))


def test_refusals():
    """Ray's assertions become errors with the text; the wall clock has no place in a replay."""
    with pytest.raises(ValueError, match=r"ASHAScheduler\(grace_period=99\): grace_period must"):
        build("ASHAScheduler(grace_period=99)", SWEEP, "scheduler")
    with pytest.raises(ValueError, match="wall clock"):
        build("TimeoutStopper(60)", SWEEP, "stopper")
    with pytest.raises(ValueError, match="Unknown name 'ASHAScheduler'"):
        build("ASHAScheduler", SWEEP, "stopper")


@pytest.mark.parametrize(
    "text",
    [
        "Patience(2) | On('kl', ThresholdStopper(threshold=0.5), 'max')",
        "PatienceStopper(patience=2) | On('kl', ThresholdStopper(threshold=0.5), mode='max')",
        "On('kl', PatienceStopper(patience=9) | ThresholdStopper(threshold=0.5), 'max')",
        "AnyOf(Patience(2), On('kl', After(1, ThresholdStopper(threshold=0.5)), 'max'))",
    ],
)
def test_a_rule_by_its_name_is_a_stopper(text):
    """Also on another metric; beside named stoppers, and around them."""
    stopper = build(text, SWEEP, "stopper")
    results = [{"training_iteration": t, "score": t, "kl": kl} for t, kl in ((1, 0.4), (2, 0.6))]
    assert [stopper("a", result) for result in results] == [False, True]
    assert "kl: 0.6 is past the threshold 0.5" in results[1]["stop_reason"]


def test_a_rule_within_its_scheduler():
    """By its name, and with the sweep's metric and mode."""
    made = build("RuleScheduler(Patience(3) | Budget(gpu_hours=1))", SWEEP, "scheduler")
    assert made.rule == PerTrial(Patience(3) | Budget(gpu_hours=1))
    assert build("RollbackScheduler(patience=3)", SWEEP, "scheduler").rule.patience == 3
    with pytest.raises(ValueError, match=r"is a rule: write RuleScheduler\(Patience\(3\)\)"):
        build("Patience(3)", SWEEP, "scheduler")
    with pytest.raises(TypeError, match="use RollbackScheduler"):
        build("Rollback(patience=3)", SWEEP, "stopper")
