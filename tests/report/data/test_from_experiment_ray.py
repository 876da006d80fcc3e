"""Reports of real sweeps: by Ray's own ASHA, by our stopper with its journal, and one cut off."""

import shutil
import time

import pytest
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from tune_stoppers import PatienceStopper
from tune_stoppers.report import experiment_story
from tune_stoppers.report.html.page import page

pytestmark = [
    pytest.mark.usefixtures("ray_session"),
    # Ray's own, in the driver: its event loop policy and the loggers it still loads by default
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
]
STEPS = 9


def train(config):
    for step in range(1, STEPS + 1):
        if config["floor"] == 3 and step == 2:
            raise RuntimeError("out of <memory>")
        flat = config["floor"] == 2
        tune.report({"eval": {"loss": config["floor"] + (0 if flat else 1 / step)}, "lr": 0.1})
        time.sleep(0.01)


def run(folder, name, stop=None, scheduler=None):
    tuner = tune.Tuner(
        train,
        param_space={"floor": tune.grid_search([0, 1, 2, 3])},
        tune_config=tune.TuneConfig(
            metric="eval/loss", mode="min", scheduler=scheduler, reuse_actors=True
        ),
        run_config=tune.RunConfig(name=name, storage_path=str(folder), stop=stop, verbose=0),
    )
    return tuner.fit()


@pytest.fixture(scope="module")
def rays_own(ray_session, tmp_path_factory):
    folder = tmp_path_factory.mktemp("asha")
    run(folder, "asha", scheduler=ASHAScheduler(max_t=STEPS, grace_period=3, reduction_factor=3))
    return folder / "asha"


@pytest.fixture(scope="module")
def ours(ray_session, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ours")
    return run(folder, "ours", PatienceStopper("eval/loss", "min", patience=3))


def ends(story):
    return {trial.config["floor"]: trial.ending for trial in story.trials}


def test_a_sweep_of_rays_own_asha(rays_own):
    """There is no journal, and the page says so; what went wrong is told in the error's words."""
    story = experiment_story(rays_own, "eval/loss", "min")
    assert story.best.config["floor"] == 0
    assert ends(story)[0].kind == "finished"
    assert ends(story)[3].reason.endswith("RuntimeError: out of <memory>")
    assert {ending.kind for ending in ends(story).values()} <= {"finished", "unexplained", "failed"}
    text = page(story)
    assert "There is no journal" in text
    assert "out of &lt;memory&gt;" in text
    assert story.lanes
    assert 0 < story.spent < 60
    assert all(0 <= span.begin <= span.end for trial in story.trials for span in trial.spans)


def test_a_sweep_under_our_stopper(ours):
    """The flat trial's reason has its numbers; what `fit` gave tells the same as the folder."""
    story = experiment_story(ours, "eval/loss", "min")
    by_path = experiment_story(ours.experiment_path, "eval/loss", "min")
    assert (ends(by_path), by_path.load) == (ends(story), story.load)
    assert ends(story)[2].cause == "PatienceStopper"
    assert "3 of 3 evaluations without improvement" in ends(story)[2].reason
    assert (ends(story)[0].kind, ends(story)[3].kind) == ("finished", "failed")
    flat = next(trial for trial in story.trials if trial.config["floor"] == 2)
    assert (flat.last_step, flat.saved_reports) == (4, 5)
    assert "PatienceStopper" in page(story)
    assert set(flat.extras) == {"lr"}


def test_a_sweep_whose_driver_was_killed(ours, tmp_path, caplog):
    """Half a line at the end of everything, no state of Ray's: told as far as it goes."""
    shutil.copytree(ours.experiment_path, tmp_path / "cut")
    for path in (tmp_path / "cut").rglob("*.json*"):
        if path.name.startswith(("experiment_state", "basic-variant")):
            path.unlink()
        elif path.name == "result.json" or path.name.startswith("journal-"):
            path.write_bytes(path.read_bytes()[:-80])
    story = experiment_story(tmp_path / "cut", "eval/loss", "min")
    assert "torn" in caplog.text
    assert len(story.trials) == 4
    assert story.best is not None
    assert {ends(story)[0].kind, ends(story)[1].kind} == {"finished"}  # at the same step
    assert ends(story)[2].cause in ("PatienceStopper", "no end recorded")  # as far as was written
    assert page(story)
