"""Decisions in the trackers where runs are looked at, after a real sweep."""

import importlib.util
import json
import os
import pickle
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest

from tune_stoppers import DecisionCallback, RuleScheduler, rules

REASON = "RuleScheduler: 2 of 2 evaluations without improvement, value 0.5, best 0.5 at step 2"
pytestmark = pytest.mark.filterwarnings("ignore")  # of the trackers' own


def needs(module):
    """Skip without a tracker."""
    missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"{module} is not installed")


def train(config):
    """Accuracies: one trial rises to its end, the other has stalled from its second report on."""
    from ray import tune

    for step in range(5):
        tune.report({"acc": 0.5 if config["stalls"] and step else 0.2 * step})


@pytest.fixture(scope="module")
def sweep(ray_session, tmp_path_factory):
    """The folder of a sweep of two trials under a scheduler, with every tracker that there is."""
    from ray import tune

    folder = tmp_path_factory.mktemp("sweep")
    os.environ["TRACKIO_DIR"] = str(folder / "trackio")
    os.environ["WANDB_MODE"] = "offline"
    callbacks = [DecisionCallback()]
    if importlib.util.find_spec("wandb"):
        from ray.air.integrations.wandb import WandbLoggerCallback

        callbacks.append(WandbLoggerCallback(project="project", mode="offline", dir=str(folder)))
    if importlib.util.find_spec("mlflow"):
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        store = f"sqlite:///{folder}/mlflow.db"
        callbacks.insert(0, MLflowLoggerCallback(store, experiment_name="experiment"))
    if importlib.util.find_spec("trackio"):
        import trackio  # noqa: F401  # what makes it one in use
    try:
        tune.Tuner(
            train,
            param_space={"stalls": tune.grid_search([0, 1])},
            tune_config=tune.TuneConfig(
                metric="acc", mode="max", scheduler=RuleScheduler(rules.Patience(2))
            ),
            run_config=tune.RunConfig(
                name="sweep", storage_path=str(folder), verbose=0, callbacks=callbacks
            ),
        ).fit()
    finally:
        del os.environ["WANDB_MODE"]
    return folder


def trial_folder(sweep, stalls):
    """Where one of the trials has its files."""
    (found,) = sweep.glob(f"sweep/train_*stalls={stalls}_*")
    return found


def rows(sweep, stalls):
    """The lines of a trial's `result.json`."""
    text = (trial_folder(sweep, stalls) / "result.json").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_result_json_says_why_a_scheduler_stopped_the_trial(sweep):
    """Ray gives a scheduler a copy; a change of Ray's that hides the original fails here."""
    *before, last = rows(sweep, 1)
    assert last["stop_reason"] == REASON
    assert not any("stop_reason" in row for row in before)
    assert not any("stop_reason" in row for row in rows(sweep, 0))


def test_every_result_has_the_status_and_the_numbers(sweep):
    """In the metric's own units, also where it is maximised."""
    assert {row["stop_status"] for row in rows(sweep, 0)} == {"not stopped"}
    assert [row["stop_status"] for row in rows(sweep, 1)] == ["not stopped"] * 3 + ["stopped"]
    assert [row["decision"]["stopped"] for row in rows(sweep, 1)] == [0, 0, 0, 1]
    assert rows(sweep, 1)[-1]["decision"]["RuleScheduler/Patience/best"] == 0.5


def test_tensorboard_has_texts_in_the_trials_run(sweep):
    """And Ray's own file there has the numbers."""
    assert texts_of(trial_folder(sweep, 1)) == {
        ("stop_status/text_summary", "stopped", 4),
        ("stop_reason/text_summary", REASON, 4),
    }
    assert texts_of(trial_folder(sweep, 0)) == {("stop_status/text_summary", "not stopped", 5)}
    (rays,) = trial_folder(sweep, 1).glob("events.out.tfevents.*[!0-9]")
    assert b"ray/tune/decision/stopped" in rays.read_bytes()


@needs("wandb")
def test_wandbs_run_has_the_reason_in_its_config_and_the_numbers_as_metrics(sweep):
    """The run is the one of Ray's `WandbLoggerCallback`: there is one for each trial."""
    config, summary = wandb_run(sweep, rows(sweep, 1)[0]["trial_id"])
    assert (config["stop_status"], config["stop_reason"]) == ("stopped", REASON)
    assert (summary["decision/stopped"], summary["decision/RuleScheduler/Patience/best"]) == (
        1,
        0.5,
    )
    config, summary = wandb_run(sweep, rows(sweep, 0)[0]["trial_id"])
    assert config["stop_status"] == "not stopped"
    assert "stop_reason" not in config


@needs("mlflow")
def test_mlflows_run_can_be_found_by_its_status(sweep):
    """The run is the one of Ray's `MLflowLoggerCallback`, which comes before ours here."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{sweep}/mlflow.db")
    experiments = [each.experiment_id for each in client.search_experiments()]
    (run,) = client.search_runs(experiments, filter_string="tags.stop_status = 'stopped'")
    assert run.data.params == {"stalls": "1"}
    assert run.data.tags["stop_reason"] == REASON
    (other,) = client.search_runs(experiments, filter_string="tags.stop_status = 'not stopped'")
    assert other.data.params == {"stalls": "0"}
    assert "stop_reason" not in other.data.tags


@needs("trackio")
def test_trackio_has_a_run_of_each_trials_name(sweep):
    """In a project of the experiment's name."""
    database = sqlite3.connect(sweep / "trackio" / "sweep.db")
    try:
        found = database.execute("select run_name, step, metrics from metrics").fetchall()
    finally:
        database.close()
    logged = {name: (step, json.loads(text)) for name, step, text in found}
    assert len(logged) == 2
    step, last = logged["train_" + rows(sweep, 1)[0]["trial_id"]]
    assert (step, last["stop_status"], last["stop_reason"]) == (4, "stopped", REASON)
    assert last["decision/RuleScheduler/Patience/best"] == 0.5


def test_an_unknown_tracker_is_refused():
    """At construction, naming those that there are."""
    with pytest.raises(ValueError, match="knows wandb, mlflow, tensorboard, trackio, got 'tb'"):
        DecisionCallback("tb")


def test_a_tracker_that_is_named_and_not_installed_is_refused(monkeypatch):
    """With the line that installs it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'tune_stoppers\[mlflow\]'"):
        DecisionCallback("mlflow")


def test_a_tracker_that_fails_ends_no_sweep(tmp_path, caplog):
    """One warning says so."""
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    trial = SimpleNamespace(trial_id="t", last_result={}, local_path=str(blocked / "trial"))
    callback = DecisionCallback("tensorboard")
    for _ in range(2):
        callback.on_trial_complete(0, [trial], trial)
        callback.on_step_end(0, [trial])
    (warning,) = caplog.messages
    assert "cannot write to tensorboard" in warning


def test_a_paused_trial_that_goes_on_and_one_that_fails_are_told(tmp_path):
    """Each change of the status is written, and a status that stays is not."""
    trial = SimpleNamespace(trial_id="t", last_result={}, local_path=str(tmp_path))
    callback = DecisionCallback("tensorboard")
    for result in ({}, {"would_stop_reason": "A: why"}, {"would_stop_reason": "A: why"}, {}):
        callback.on_trial_result(0, [trial], trial, {"training_iteration": 1} | result)
        callback.on_step_end(0, [trial])
    callback.on_trial_error(0, [trial], trial)
    callback.on_experiment_end([trial])
    assert [text for key, text, _ in sorted_texts(tmp_path) if "status" in key] == [
        "would stop",
        "not stopped",
        "failed",
    ]


def test_a_trial_stopped_while_it_waited_has_its_reason(tmp_path):
    """It has no report at which it was stopped."""
    result = {"training_iteration": 3, "stop_reason": "user: looks wrong"}
    trial = SimpleNamespace(trial_id="t", last_result=result, local_path=str(tmp_path))
    callback = pickle.loads(pickle.dumps(DecisionCallback("tensorboard")))
    callback.on_trial_complete(0, [trial], trial)
    callback.on_step_end(0, [trial])
    assert ("stop_reason/text_summary", "user: looks wrong", 3) in texts_of(tmp_path)


# -- reading what the trackers wrote ---------------------------------------------------------------


def sorted_texts(folder: Path):
    """Tag, text and step of each text in the files that are ours, in order."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("*.decision*"), key=lambda path: int(path.suffix[9:])):
        data, at = path.read_bytes(), 0
        while at < len(data):  # length, its checksum, the event, its checksum
            size = int.from_bytes(data[at : at + 8], "little")
            event = Event.FromString(data[at + 12 : at + 12 + size])
            at += 16 + size
            for value in event.summary.value:
                found.append((value.tag, value.tensor.string_val[0].decode(), event.step))
    return found


def texts_of(folder: Path):
    """The texts of a run."""
    return set(sorted_texts(folder))


def wandb_run(folder: Path, trial_id: str):
    """The configuration and the summary in the offline run of a trial."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob(f"wandb/offline-run-*/run-{trial_id}.wandb")
    config, summary = {}, {}
    for data in leveldb_records(path.read_bytes()):
        record = Record.FromString(data)
        for into, items in ((config, record.config.update), (summary, record.summary.update)):
            into.update({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items})
    return config, summary


def leveldb_records(data: bytes):
    """The records of a log in LevelDB's format, after W&B's header of 7 bytes."""
    at, held = 7, b""
    while at < len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        held += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield held
            held = b""
