"""A running sweep that is watched, stopped by hand and explained: with the command, in real Ray."""

import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ray import tune

from tune_stoppers.cli import main
from tune_stoppers.experiment.stop_request import ask_to_stop
from tune_stoppers.report.data.explain import explain
from tune_stoppers.tune.schedulers.bound_asha import BoundASHAScheduler
from tune_stoppers.tune.stoppers.named import PatienceStopper

pytestmark = [
    pytest.mark.usefixtures("ray_session"),
    # Ray's own, in the driver: its event loop policy and the loggers it still loads by default
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
]
PATIENCE_SECONDS = 240


def for_ever(config: dict[str, Any]) -> None:
    """The first trial never stops by itself: it would run for some minutes."""
    for step in range(1, 1200 if config["first"] else 4):
        time.sleep(0.2 if config["first"] else 0)
        tune.report({"loss": 1.0 / step})


def fit(folder: Path, trainable: Any, space: dict[str, Any], **given: Any) -> Any:
    stop = given.pop("stop", None)
    return tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(metric="loss", mode="min", **given),
        run_config=tune.RunConfig(name="sweep", storage_path=str(folder), stop=stop, verbose=0),
    ).fit()


def ask_once_it_runs(experiment: Path, statuses: list[int]) -> None:
    """Call the command as a user would, once the first trial has reported."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        for path in experiment.glob("*first=True*/result.json"):
            rows = path.read_text().splitlines()
            if rows and list(experiment.glob("tune_stoppers/*/journal-*")):
                trial = json.loads(rows[0])["trial_id"]
                statuses.append(main(["stop", str(experiment), trial, "--why", "seen enough"]))
                return
        time.sleep(0.1)


WATCHERS = {
    "stopper": lambda: {"stop": PatienceStopper("loss", "min", patience=900)},
    "scheduler": lambda: {"scheduler": BoundASHAScheduler(2000, grace_period=1500)},
}


@pytest.mark.parametrize("kind", WATCHERS)
def test_a_trial_is_stopped_by_hand(tmp_path: Path, kind: str) -> None:
    """At its next report, with the reason in its result; the other one goes on."""
    statuses: list[int] = []
    experiment = tmp_path / "sweep"
    user = threading.Thread(target=ask_once_it_runs, args=(experiment, statuses))
    user.start()
    space = {"first": tune.grid_search([True, False])}
    results = fit(tmp_path, for_ever, space, reuse_actors=True, **WATCHERS[kind]())
    user.join()
    assert statuses == [0]
    first, other = sorted(results, key=lambda result: not result.config["first"])
    assert first.metrics["stop_reason"] == "user: seen enough"
    assert other.metrics["training_iteration"] == 3
    frame = explain(experiment).set_index("trial_id")
    row = frame.loc[first.metrics["trial_id"]]
    assert (row["cause"], row["reason"]) == ("stopped by hand", "user: seen enough")
    assert main(["explain", str(experiment), "--verify"]) == 0
    with pytest.raises(ValueError, match="has already ended"):
        ask_to_stop(experiment, first.metrics["trial_id"])


def curve(config: dict[str, Any]) -> None:
    for step in range(1, 13):
        with tempfile.TemporaryDirectory() as folder:
            kept = tune.Checkpoint.from_directory(folder) if step % 2 == 0 else None
            loss = config["floor"] + (1.0 / step if config["floor"] < 0.5 else 0.0)
            tune.report({"loss": loss}, checkpoint=kept)


def test_what_a_sweep_wrote_down_comes_out_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every decision of a real sweep, of its stopper and of its scheduler."""
    floors = [0.0, 0.1, 0.9, 0.8]
    results = fit(
        tmp_path,
        curve,
        {"floor": tune.grid_search(floors)},
        stop=PatienceStopper("loss", "min", patience=3),
        scheduler=BoundASHAScheduler(12, grace_period=2),
    )
    assert main(["explain", str(tmp_path / "sweep"), "--verify", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    owners = {one["owner"]: one for one in found["verified"]}
    assert owners.keys() == {"PatienceStopper", "BoundASHAScheduler"}
    reports = sum(result.metrics["training_iteration"] for result in results)
    assert owners["PatienceStopper"]["checked"] == reports
    assert not any(one["differing"] for one in owners.values())
    ended = {trial["trial_id"]: trial["ending"] for trial in found["trials"]}
    by_floor = {result.config["floor"]: ended[result.metrics["trial_id"]] for result in results}
    assert (by_floor[0.0], by_floor[0.9], by_floor[0.8]) == ("finished", "stopped", "stopped")
