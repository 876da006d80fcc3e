"""BoundASHAScheduler: Ray's side of the rule."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune

from tune_stoppers import BoundASHAScheduler, PatienceStopper
from tune_stoppers.core import MissingMetricError


def flat(time: float, loss: Any, **more: Any) -> dict[str, Any]:
    return {"training_iteration": time, "loss": loss, "config": {}, **more}


def report(scheduler: BoundASHAScheduler, trial: str, time: float, loss: Any) -> str:
    return scheduler.on_trial_result(None, SimpleNamespace(trial_id=trial), flat(time, loss))


@pytest.mark.parametrize(("mode", "sign"), [("min", 1), ("max", -1)])
def test_quota_in_both_directions(mode: Any, sign: int) -> None:
    """The worst of three at a rung is stopped, and the reason is in the metric's own units."""
    scheduler = BoundASHAScheduler(9, 1, metric="loss", mode=mode)
    got = [report(scheduler, f"t{i}", 1, sign * float(i + 1)) for i in range(3)]
    assert got == ["CONTINUE", "CONTINUE", "STOP"]
    assert f"{sign * 3} is rank 3 of 3 at rung 1" in scheduler.explain("t2")


def test_dry_run_stops_nothing() -> None:
    """Under dry_run all go on, and `decisions` tell what would have been."""
    scheduler = BoundASHAScheduler(9, 1, metric="loss", mode="min", dry_run=True)
    assert {report(scheduler, f"t{i}", 1, float(i)) for i in range(3)} == {"CONTINUE"}
    assert "rank 3 of 3" in scheduler.explain("t2")


def test_start_after_records_but_does_not_stop() -> None:
    """Before `start_after` everything is recorded and nothing stopped."""
    scheduler = BoundASHAScheduler(9, 1, metric="loss", mode="min", start_after=3)
    assert {report(scheduler, f"t{i}", 1, float(i)) for i in range(3)} == {"CONTINUE"}
    assert report(scheduler, "t2", 3, 9.0) == "CONTINUE"  # alone at rung 3


@pytest.mark.parametrize(("policy", "action"), [("worst", "STOP"), ("stop", "STOP")])
def test_nonfinite_is_stopped_at_once(policy: Any, action: str) -> None:
    """NaN stops the trial, and counts as worst at its next rung."""
    scheduler = BoundASHAScheduler(9, 3, metric="loss", mode="min", on_nonfinite=policy)
    assert report(scheduler, "a", 1, math.nan) == action
    assert "3: 1" in scheduler.debug_string()


def test_nonfinite_can_be_ignored() -> None:
    """Under "ignore" a NaN is as if it had not been reported."""
    scheduler = BoundASHAScheduler(9, 1, metric="loss", mode="min", on_nonfinite="ignore")
    assert report(scheduler, "a", 1, math.nan) == "CONTINUE"
    assert "1: 0" in scheduler.debug_string()


def test_metric_from_one_place() -> None:
    """Metric and mode come from TuneConfig or from here; two different ones are an error."""
    scheduler = BoundASHAScheduler(9)
    with pytest.raises(TypeError, match="needs metric"):
        scheduler.set_search_properties(None, None)
    assert BoundASHAScheduler(9).set_search_properties("loss", "min")
    both = BoundASHAScheduler(9, metric="loss", mode="min")
    assert both.set_search_properties("loss", "min")
    with pytest.raises(ValueError, match="metric='loss' and TuneConfig metric='acc'"):
        both.set_search_properties("acc", "min")


def test_missing_metric_by_policy() -> None:
    """Under "skip" Ray is not told of the metric, and a report without it is left out."""
    strict = BoundASHAScheduler(9, 1, metric="los", mode="min")
    assert strict.metric == "los"
    with pytest.raises(MissingMetricError, match="Did you mean 'loss'"):
        report(strict, "a", 1, 1.0)
    lenient = BoundASHAScheduler(9, 1, metric="los", mode="min", on_missing="skip")
    assert lenient.metric is None
    assert report(lenient, "a", 1, 1.0) == "CONTINUE"


def test_in_a_real_sweep(ray_session: None, tmp_path: Path) -> None:
    """Hopeless trials end early beside a stopper of ours, the best one reaches the horizon."""

    def train(config: dict[str, Any]) -> None:
        for step in range(1, 13):
            tune.report({"eval": {"loss": config["floor"] + 1 / step}})

    results = tune.Tuner(
        train,
        param_space={"floor": tune.grid_search([0.0, 5.0, 6.0, 7.0, 8.0, 9.0])},
        tune_config=tune.TuneConfig(
            metric="eval/loss",
            mode="min",
            scheduler=BoundASHAScheduler(12, grace_period=2),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path), verbose=0, stop=PatienceStopper("eval/loss", "min")
        ),
    ).fit()
    steps = {r.config["floor"]: r.metrics["training_iteration"] for r in results}
    assert not results.errors
    assert steps[0.0] == 12
    assert sum(steps.values()) < 6 * 12 / 2
    reasons = {r.config["floor"]: r.metrics.get("stop_reason", "") for r in results}
    assert reasons[9.0].startswith(("BoundASHAScheduler: ", "PatienceStopper: "))
    assert any(reason.startswith("BoundASHAScheduler: ") for reason in reasons.values())
