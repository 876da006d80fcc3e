"""The order in which new trials start: in replays, and in a real sweep that is interrupted."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ray import tune
from ray.tune import TuneError
from ray.tune.schedulers import TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from tests.stand_ins.ray_runs import end_uploads
from tune_stoppers import BoundASHAScheduler, Sweep, explain, replay
from tune_stoppers.backtest.replay import ReplayResult
from tune_stoppers.cli import main
from tune_stoppers.journal.lines import read_journal

MAX_T = 9


def sweep(trials: int = 80) -> Sweep:
    chance = np.random.default_rng(5)
    rows = [
        {
            "trial_id": f"t{number:03d}",
            "training_iteration": step,
            "loss": (math.log10(rate) + 3) ** 2 + 1 / step,
            "config/lr": rate,
        }
        for number, rate in enumerate(10 ** chance.uniform(-6, 0, trials))
        for step in range(1, MAX_T + 1)
    ]
    return Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min")


def by_model(**more: Any) -> BoundASHAScheduler:
    return BoundASHAScheduler(MAX_T, drop="typical", order="model", **more)


def replayed(scheduler: Any, **options: Any) -> ReplayResult:
    return replay(sweep(), scheduler, workers=4, **options)


def started(result: ReplayResult) -> list[str]:
    journal = result.journal
    return journal[journal["action"] == "start"]["trial_id"].tolist()


def test_the_good_ones_start_first() -> None:
    """The best tenth starts within the first third, and the best is found sooner."""
    recorded, given, model = sweep(), started(replayed(BoundASHAScheduler(MAX_T))), None
    best = {c.trial_id for c in sorted(recorded, key=lambda c: c.metrics["loss"][-1])[:8]}
    model = started(replayed(by_model()))
    assert sorted(model) == sorted(given)  # each once
    assert best <= set(model[:27])
    assert not best <= set(given[:27])
    assert model[:8] == given[:8]


def test_the_same_sweep_starts_in_the_same_order() -> None:
    """Seed and reports decide, nothing else."""
    assert started(replayed(by_model())) == started(replayed(by_model()))


def test_a_dry_run_leaves_the_order_alone() -> None:
    """What is only looked at is not changed."""
    dry = started(replayed(by_model(dry_run=True)))
    assert dry == started(replayed(BoundASHAScheduler(MAX_T, dry_run=True)))


class Pauses(BoundASHAScheduler):
    """Pauses each trial once, as a scheduler that changes its resources does."""

    def _begin(self) -> None:
        super()._begin()
        self._seen: set[str] = set()

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        action = super().on_trial_result(controller, trial, result)
        if action != TrialScheduler.CONTINUE or trial.trial_id in self._seen:
            return action
        self._seen.add(trial.trial_id)
        return str(TrialScheduler.PAUSE)


@pytest.mark.parametrize("workers", [1, 4])
def test_what_others_pause_goes_on(workers: int) -> None:
    """A wrapped scheduler that pauses trials gets them back, or the sweep would hang."""
    result = replay(sweep(20), Pauses(MAX_T, drop="typical", order="model"), workers=workers)
    assert sorted(started(result)) == [f"t{number:03d}" for number in range(20)]
    actions = result.journal["action"].value_counts()
    assert actions["pause"] == actions["resume"] >= 5


def test_an_unknown_order_is_an_error() -> None:
    """It says what there is."""
    with pytest.raises(ValueError, match="order must be"):
        BoundASHAScheduler(MAX_T, order="best")  # type: ignore[arg-type]


def test_a_window_and_the_model_exclude_each_other() -> None:
    """Old trials would be compared with young ones by their best values, at any age."""
    with pytest.raises(ValueError, match='window=9 forgets losses that order="model"'):
        BoundASHAScheduler(MAX_T, window=9, order="model")


@pytest.mark.parametrize("mode", ["min", "max"])
def test_other_schedulers_order_by_the_best_so_far(mode: Any) -> None:
    """As Ray knows it of each trial; the better, the lower, whichever way the metric goes."""
    scheduler = BoundASHAScheduler(MAX_T, metric="loss", mode=mode, order="model")
    base = type(scheduler).__mro__[1].standing  # what schedulers without rungs have
    trial = type("T", (), {"metric_analysis": {"loss": {"min": 1.0, "max": 3.0}}})()
    assert base(scheduler, trial).best == {"min": 1.0, "max": -3.0}[mode]
    beyond = type("T", (), {"metric_analysis": {"loss": {"min": -math.inf, "max": math.inf}}})()
    assert base(scheduler, beyond).best == math.inf  # a value that is not finite is no good one
    silent = type("T", (), {"metric_analysis": {}})()
    assert base(scheduler, silent) is None


def train(config: dict[str, Any]) -> None:
    for step in range(1, MAX_T + 1):
        tune.report({"loss": (math.log10(config["lr"]) + 3) ** 2 + 1 / step})


class Breaks(tune.Callback):
    """Ends the sweep as a bug in the driver would, unless it is disarmed."""

    def __init__(self, armed: Path) -> None:
        self.armed, self.reports = armed, 0

    def on_trial_result(self, *args: Any, **kwargs: Any) -> None:
        self.reports += 1
        if self.reports > 30 and self.armed.exists():
            self.armed.unlink()
            raise RuntimeError("the driver breaks")


@pytest.fixture(scope="module")
def interrupted(
    ray_session: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any, list[str]]:
    """A sweep that broke off, and was gone on with."""
    folder = tmp_path_factory.mktemp("ordered")
    armed = folder / "armed"
    armed.touch()
    rates = 10 ** np.random.default_rng(5).uniform(-6, 0, 24)
    run = tune.RunConfig(
        name="sweep", storage_path=str(folder), verbose=0, callbacks=[Breaks(armed)]
    )
    config = tune.TuneConfig(metric="loss", mode="min", scheduler=by_model(), reuse_actors=True)
    space = {"lr": tune.grid_search([float(rate) for rate in rates])}
    with pytest.raises(TuneError, match="the driver breaks"):
        tune.Tuner(train, param_space=space, tune_config=config, run_config=run).fit()
    end_uploads()
    before = [line["trial"] for line in lines_of(folder) if line.get("event") == "started"]
    return folder, tune.Tuner.restore(str(folder / "sweep"), train).fit(), before


def lines_of(folder: Path) -> list[dict[str, Any]]:
    files = sorted((folder / "sweep").glob("tune_stoppers/*/journal-*.jsonl"))
    return [line for file in files for line in read_journal(file)]


def test_in_a_real_sweep_every_trial_runs_also_after_a_restore(
    interrupted: tuple[Path, Any, list[str]],
) -> None:
    """Those held back are held back again; none is lost, left paused, or started twice."""
    folder, results, before = interrupted
    assert len(results) == 24
    assert results.num_errors == 0
    trials = results._experiment_analysis.trials
    assert {trial.status for trial in trials} == {"TERMINATED"}
    assert all(result.metrics["training_iteration"] >= 1 for result in results)
    assert 0 < len(before) < 24
    seen: set[str] = set()
    for line in lines_of(folder):
        assert not (line.get("event") == "started" and line["trial"] in seen)
        seen |= {line["trial"]} if "action" in line else set()


def test_in_a_real_sweep_they_start_in_the_order_chosen(
    interrupted: tuple[Path, Any, list[str]],
) -> None:
    """With reused processes too: none is passed over but by what runs beside it."""
    folder, _, _ = interrupted
    lines = lines_of(folder)
    chosen = [line["trial"] for line in lines if line.get("event") == "started"]
    reported = list(dict.fromkeys(line["trial"] for line in lines if "action" in line))
    assert sorted(chosen) == sorted(reported)
    assert max(reported.index(trial) - chosen.index(trial) for trial in chosen) <= 2


def test_the_journal_says_why_each_was_started(
    interrupted: tuple[Path, Any, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """By the model, or as the first ones, in the order given."""
    folder, _, _ = interrupted
    why = [line["numbers"]["why"] for line in lines_of(folder) if line.get("event") == "started"]
    assert any("the model expects" in reason for reason in why)
    assert sum("the first 8 trials" in reason for reason in why) >= 8
    assert len(explain(folder / "sweep")) == 24
    model = next(
        line for line in lines_of(folder) if "expects" in line.get("numbers", {}).get("why", "")
    )
    assert main(["explain", str(folder / "sweep"), model["trial"]]) == 0
    assert "the model expects it to do better" in capsys.readouterr().out


def test_a_searcher_that_adapts_keeps_its_order(
    ray_session: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It would be asked for all of its samples at once if they were held back."""
    tuner = tune.Tuner(
        train,
        param_space={"lr": tune.loguniform(1e-6, 1)},
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            num_samples=3,
            reuse_actors=True,
            search_alg=OptunaSearch(seed=1),
            scheduler=by_model(),
        ),
        run_config=tune.RunConfig(name="sweep", storage_path=str(tmp_path), verbose=0),
    )
    with caplog.at_level(logging.INFO, logger="tune_stoppers"):
        results = tuner.fit()
    assert len(results) == 3
    assert not [line for line in lines_of(tmp_path) if line.get("event") == "started"]
    assert json.dumps([result.metrics["loss"] for result in results])
