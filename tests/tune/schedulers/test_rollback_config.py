"""RollbackScheduler: how the configuration is changed, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from ray.tune import Stopper
from ray.tune.stopper import CombinedStopper, MaximumIterationStopper

from tests.stand_ins.rollback_stage import QUICK, Stage
from tune_stoppers import (
    AllOf,
    AnyOf,
    DivergenceStopper,
    PatienceStopper,
    RollbackScheduler,
    RuleStopper,
    rules,
)
from tune_stoppers.rules import Divergence
from tune_stoppers.tune.schedulers.rollback import scaled


def test_the_rate_may_be_anywhere() -> None:
    """Flat, nested, or flat with a slash; the given config is left as it was."""
    config = {"lr": 1.0, "a": {"b": {"lr": 2}, "c": 3}, "x/y": 4.0}
    assert scaled(config, "lr", 0.5) == config | {"lr": 0.5}
    assert scaled(config, "a/b/lr", 0.5) == config | {"a": {"b": {"lr": 1.0}, "c": 3}}
    assert scaled(config, "x/y", 0.5) == config | {"x/y": 2.0}
    assert config["a"] == {"b": {"lr": 2}, "c": 3}


def test_any_change_of_the_config(tmp_path: Path) -> None:
    """`mutate` takes the place of `lr_key` and `factor`."""
    scheduler = RollbackScheduler(**QUICK, mutate=lambda config: config | {"clip": 1.0})
    stage = Stage(tmp_path, scheduler)
    trial = stage.add(config={"depth": 3})
    stage.start(trial)
    stage.curve(trial, [1, 2, 2])
    assert stage.resume()[2] == {"depth": 3, "clip": 1.0}


def test_mutate_must_return_a_config(tmp_path: Path) -> None:
    """One that changes it in place returns None, and is told so."""
    stage = Stage(tmp_path, RollbackScheduler(**QUICK, mutate=lambda config: config.clear()))
    trial = stage.add()
    stage.start(trial)
    stage.curve(trial, [1, 2, 2])
    with pytest.raises(TypeError, match="mutate must return a config, got None"):
        stage.resume()


@pytest.mark.parametrize(
    ("config", "key", "said"),
    [
        ({"learning_rate": 1.0}, "lr", "lr_key='lr' is no number in the config, which has: learn"),
        ({"opt": {"lr": "fast"}}, "opt/lr", "has: opt/lr"),
        ({"opt": {"rate": 1.0}}, "opt/rat", "Did you mean 'opt/rate'"),
        ({}, "lr", "has: nothing"),
    ],
)
def test_a_config_without_the_rate_is_refused_at_the_start(
    tmp_path: Path, config: dict[str, Any], key: str, said: str
) -> None:
    """With the keys that there are."""
    stage = Stage(tmp_path, RollbackScheduler(**QUICK, lr_key=key))
    with pytest.raises(ValueError, match=said):
        stage.add(config=config)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"factor": 1}, ValueError, "factor must be < 1, got 1"),
        ({"factor": 0.0}, ValueError, "factor must be > 0"),
        ({"lr_key": ""}, TypeError, "lr_key must be the name of a config entry"),
        ({"mutate": {"lr": 1}}, TypeError, "mutate must be a function of a config"),
        ({"patience": 0}, ValueError, "patience must be >= 1"),
        ({"patiense": 1}, TypeError, "patience"),
    ],
)
def test_wrong_parameters_are_refused(options: Any, error: type[Exception], said: str) -> None:
    """At construction."""
    with pytest.raises(error, match=said):
        RollbackScheduler(**options)


# -- what does not go together -------------------------------------------------------------------

DIVERGENCE = DivergenceStopper("loss", "min", factor=2.0)
PATIENCE = PatienceStopper("loss", "min", patience=9)
KILLERS = {
    "itself": DIVERGENCE,
    "among others": AnyOf(PATIENCE, DIVERGENCE),
    "in a list of Ray's": CombinedStopper(MaximumIterationStopper(3), DIVERGENCE),
    "as a rule": RuleStopper(rules.Patience(9) | rules.Divergence(factor=2.0), "loss", "min"),
    "as a late rule": DivergenceStopper("loss", "min", factor=2.0, start_after=5),
}
HARMLESS = {
    "no stopper": None,
    "patience": PATIENCE,
    "only together with another": AllOf(PATIENCE, DIVERGENCE),
    "in shadow mode": DivergenceStopper("loss", "min", dry_run=True),
}


@pytest.mark.parametrize("stopper", KILLERS.values(), ids=KILLERS)
def test_a_divergence_stopper_is_refused_at_the_start(tmp_path: Path, stopper: Stopper) -> None:
    """With the line to type instead, which has the stopper's own limits."""
    stage = Stage(tmp_path, RollbackScheduler(**QUICK), stopper=stopper)
    with pytest.raises(ValueError, match="would stop them first") as caught:
        stage.add()
    line = str(caught.value).split("type ")[1].removesuffix(".")
    typed = eval(line, {"RollbackScheduler": RollbackScheduler, "Divergence": Divergence})
    assert typed.rule.divergence == Divergence(factor=2.0)


@pytest.mark.parametrize("stopper", HARMLESS.values(), ids=HARMLESS)
def test_others_are_not(tmp_path: Path, stopper: Stopper | None) -> None:
    """Nor is any in shadow mode, where nobody is rescued."""
    stage = Stage(tmp_path, RollbackScheduler(**QUICK), stopper=stopper)
    assert stage.report(stage.add(), 1, 1.0) == "CONTINUE"
    dry = Stage(tmp_path / "dry", RollbackScheduler(**QUICK, dry_run=True), stopper=DIVERGENCE)
    assert dry.report(dry.add(), 1, 1.0) == "CONTINUE"


def test_trials_of_ray_train_are_refused(tmp_path: Path) -> None:
    """Their checkpoints are not Tune's."""
    stage = Stage(tmp_path, RollbackScheduler(**QUICK))
    trial = stage.add()
    with pytest.raises(ValueError, match=r"cannot roll back trial t: .*Ray Train"):
        stage.report(trial, 1, 1, saves=False, checkpoint_path="/somewhere")
