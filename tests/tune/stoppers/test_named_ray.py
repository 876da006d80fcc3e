"""Stoppers in real sweeps."""

import json
import tempfile
import time
from pathlib import Path

import pytest
from ray import tune
from ray.tune.stopper import MaximumIterationStopper

from tests.stand_ins.ray_runs import fit
from tune_stoppers.journal.lines import read_journal
from tune_stoppers.tune.stoppers.named import (
    PatienceStopper,
    ThresholdStopper,
)

pytestmark = [
    pytest.mark.usefixtures("ray_session"),
    # Ray's own, in the driver: its event loop policy and the loggers it still loads by default
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
]


def last_steps(results):
    return [result.metrics.get("training_iteration") for result in results]


def curve(config):
    """Reports 1, 2, …: flat or falling, nested under "eval"."""
    for step in range(1, 11):
        loss = 1.0 if config["flat"] else 1.0 / step
        tune.report({"eval": {"loss": loss}, "best": -loss})


GRID = {"flat": tune.grid_search([True, False])}


def test_a_flat_trial_stops_and_an_improving_one_runs_on(tmp_path):
    """At exactly the patience-th evaluation after the best, with its reason in the results."""
    journal = tmp_path / "decisions.jsonl"
    stop = PatienceStopper("eval/loss", "min", patience=3, journal=journal)
    flat, improving = fit(curve, stop, tmp_path, GRID)
    assert last_steps([flat, improving]) == [4, 10]
    reason = "PatienceStopper: 3 of 3 evaluations without improvement, value 1, best 1 at step 1"
    assert flat.metrics["stop_reason"] == reason
    assert "stop_reason" not in improving.metrics
    rows = (Path(flat.path) / "result.json").read_text().splitlines()
    assert json.loads(rows[-1])["stop_reason"] == reason
    stops = [line for line in read_journal(journal) if line.get("action") == "STOP"]
    assert [line["step"] for line in stops] == [4]


def test_a_dry_run_stops_nothing(tmp_path):
    """Both run to the end, and the flat one says that it would have been stopped."""
    stop = PatienceStopper("best", "max", patience=3, dry_run=True)
    flat, improving = fit(curve, stop, tmp_path, GRID)
    assert last_steps([flat, improving]) == [10, 10]
    assert "value -1, best -1 at step 1" in flat.metrics["would_stop_reason"]
    assert "would_stop_reason" not in improving.metrics


# the controller that the error ends leaves Ray's own result.json open
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_metric_never_reported_ends_the_sweep_at_its_first_report(tmp_path):
    """With the names that are there."""
    stop = PatienceStopper("eval_loss", "min")
    with pytest.raises(Exception, match=r"'eval_loss' is missing.*It has: best, eval/loss"):
        fit(curve, stop, tmp_path, GRID)


def silent(config):
    """Returns without a single report in one trial."""
    if config["flat"]:
        return
    curve(config)


def test_a_trial_that_never_reports_ends_no_sweep(tmp_path):
    """Ray makes up a result for it, with no metric in it; a stopper of Ray's ends the other."""
    stop = PatienceStopper("eval/loss", "min") | MaximumIterationStopper(6)
    results = fit(silent, stop, tmp_path, GRID)
    assert not any(result.error for result in results)
    assert last_steps(results)[1] == 6
    assert results[1].metrics["stop_reason"] == "MaximumIterationStopper fired"


def forever(config):
    """Reaches its target at step `at`, and would go on for long."""
    for step in range(1, 2000):
        tune.report({"loss": 0.05 if step >= config["at"] else 1.0})
        time.sleep(0.005)


def test_a_sweep_wide_target_ends_all_trials(tmp_path):
    """One trial is there at step 3: none goes on, none is started."""
    stop = ThresholdStopper("loss", "min", threshold=0.1, scope="sweep")
    space = {"at": tune.grid_search([3, 5000, 5000, 5000])}
    first, *others = fit(forever, stop, tmp_path, space)
    assert last_steps([first]) == [3]
    assert "past the threshold 0.1" in first.metrics["stop_reason"]
    assert all((step or 0) < 1500 for step in last_steps(others))


def saving(config):
    """Best at step 2, a checkpoint at every third step; fails once after `fail_at`."""
    start, marker = 0, Path(config["marker"]) / str(config["fail_at"])
    checkpoint = tune.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as folder:
            start = int((Path(folder) / "step").read_text())
    for step in range(start + 1, 21):
        metrics = {"loss": 1.0 if step == 1 else 0.5, "step": step}
        if step % 3:
            tune.report(metrics)
        else:
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "step").write_text(str(step))
                tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))
        if step == config["fail_at"] and not marker.exists():
            marker.touch()
            raise RuntimeError("a lost node, say")


def test_a_trial_that_is_retried_stops_where_an_undisturbed_one_does(tmp_path):
    """It goes on from its checkpoint, and what it reports again is not counted twice."""
    journal = tmp_path / "decisions.jsonl"
    stop = PatienceStopper("loss", "min", patience=6, time_attr="step", journal=journal)
    space = {"marker": str(tmp_path), "fail_at": tune.grid_search([5, 6, 99])}
    results = fit(saving, stop, tmp_path, space, max_failures=1)
    assert (tmp_path / "5").exists()
    assert (tmp_path / "6").exists()
    assert [result.metrics["step"] for result in results] == [8, 8, 8]
    assert len({result.metrics["stop_reason"] for result in results}) == 1
    rewinds = [line for line in read_journal(journal) if line.get("event") == "rewind"]
    # back to 3, whose state it took up again; the one that failed right after the checkpoint at 6
    # too, if the failure reached Ray before that checkpoint was registered
    assert {line["step"] for line in rewinds} == {4}


def test_its_state_survives_tuner_restore(tmp_path):
    """A sweep that failed goes on with its counts, not from nothing."""
    space = {"marker": str(tmp_path), "fail_at": 5}
    (broken,) = fit(saving, PatienceStopper("loss", "min", patience=6), tmp_path, space)
    assert broken.error is not None
    restored = tune.Tuner.restore(str(tmp_path / "sweep"), trainable=saving, resume_errored=True)
    (result,) = list(restored.fit())
    assert result.error is None
    assert result.metrics["step"] == 8
    assert "best 0.5 at step 2" in result.metrics["stop_reason"]


class Classic(tune.Trainable):
    """A class trainable: Ray saves it, by `checkpoint_frequency`, after its report."""

    def setup(self, config):
        self.marker, self.step_now = Path(config["marker"]), 0

    def step(self):
        self.step_now += 1
        if self.step_now == self.config["fail_at"] and not self.marker.exists():
            self.marker.touch()
            raise RuntimeError("a lost node, say")
        return {"loss": 1.0 if self.step_now == 1 else 0.5, "done": self.step_now >= 20}

    def save_checkpoint(self, checkpoint_dir):
        (Path(checkpoint_dir) / "step").write_text(str(self.step_now))

    def load_checkpoint(self, checkpoint_dir):
        self.step_now = int((Path(checkpoint_dir) / "step").read_text())


def test_a_class_trainable_that_is_retried_stops_where_an_undisturbed_one_does(tmp_path):
    """Its results do not say that a checkpoint was made, and it comes back to one."""
    results = list(
        tune.Tuner(
            Classic,
            param_space={"marker": str(tmp_path / "f"), "fail_at": tune.grid_search([6, 99])},
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=str(tmp_path),
                stop=PatienceStopper("loss", "min", patience=6),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=1),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=3),
            ),
        ).fit()
    )
    assert (tmp_path / "f").exists()
    assert {r.config["fail_at"]: r.metrics["training_iteration"] for r in results} == {6: 8, 99: 8}
