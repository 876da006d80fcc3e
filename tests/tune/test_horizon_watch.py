"""A horizon in another unit than the time: one warning, live, replayed, and told afterwards."""

import json
import logging
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ray import tune

import tune_stoppers as ts
from tune_stoppers.backtest.compare import compare
from tune_stoppers.backtest.replay import replay
from tune_stoppers.cli import main
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.report import experiment_story
from tune_stoppers.report.data.explain import Explained

LINE = 'AutoScheduler(max_t=1000, time_attr="step")'
SCHEDULERS = {
    "auto": ts.AutoScheduler,
    "bound": ts.BoundASHAScheduler,
    "promotion": ts.PromotionASHAScheduler,
    "freeze-thaw": ts.FreezeThawScheduler,
}
STOPPERS = {
    "forecast": lambda n: ts.ForecastStopper("loss", "min", max_t=n),
    "diminishing": lambda n: ts.DiminishingReturnsStopper("loss", "min", max_t=n),
    "one of two": lambda n: (
        ts.PatienceStopper("loss", "min") | ts.ForecastStopper("loss", "min", max_t=n)
    ),
}


def recorded(trials: int = 12, length: int = 6) -> Sweep:
    """All trials as long, falling, the first the best; a report is worth 160 steps."""
    rows = [
        {"trial_id": f"t{k}", "training_iteration": t, "step": 160 * t, "loss": k + 1 / t}
        | {"config/lr": k}
        for k in range(trials)
        for t in range(1, length + 1)
    ]
    return Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min", name="mine")


def warnings_in(caplog: Any) -> list[str]:
    return [r.getMessage() for r in caplog.records if "does not fit" in r.getMessage()]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_says_it_once(name: str, caplog: Any) -> None:
    """And decides as it would have; with the horizon that fits it says nothing."""
    made = SCHEDULERS[name]
    result = replay(recorded(), made(max_t=1000), workers=2)
    (said,) = warnings_in(caplog)
    assert f'{made.__name__}(max_t=1000, time_attr="step")' in said
    assert result.notes == (said,)
    assert result.reports == 72
    caplog.clear()
    for fitting in (made(max_t=6), made(max_t=960, time_attr="step"), made(max_t=10)):
        assert replay(recorded(), fitting, workers=2).notes == ()
    assert not warnings_in(caplog)


@pytest.mark.parametrize("name", STOPPERS)
def test_a_stopper_says_it_once(name: str, caplog: Any) -> None:
    """With the line that has its metric."""
    result = replay(recorded(), None, STOPPERS[name](1000), workers=2)
    (said,) = warnings_in(caplog)
    assert 'Stopper("loss", "min", max_t=1000, time_attr="step")' in said
    assert result.notes == (said,)
    assert replay(recorded(), None, STOPPERS[name](6), workers=2).notes == ()


@pytest.mark.parametrize(
    ("scheduler", "stopper", "sweep"),
    [
        (
            ts.AutoScheduler(100),
            ts.PatienceStopper("loss", "min", patience=2, baseline=-1.0),
            recorded(),
        ),
        (ts.AutoScheduler(100), ts.BudgetStopper(sweep_seconds=20), recorded(12, 40)),
        (ts.AutoScheduler(100), None, recorded(2)),
        (ts.RuleScheduler(ts.rules.Patience(3)), None, recorded()),
        (None, ts.PatienceStopper("loss", "min"), recorded()),
    ],
)
def test_trials_that_were_stopped_say_nothing_of_the_horizon(
    scheduler: Any, stopper: Any, sweep: Sweep, caplog: Any
) -> None:
    """By a stopper, with the sweep, or too few of them; a rule without a horizon has none."""
    result = replay(sweep, scheduler, stopper, workers=2)
    assert result.notes == ()
    assert not warnings_in(caplog)


def test_trials_that_crash_say_nothing_of_the_horizon(caplog: Any) -> None:
    """Nor what they had reported before."""
    result = replay(recorded(40), ts.AutoScheduler(1000), workers=2, failure_rate=0.9)
    assert sum(result.trials["status"] == "TERMINATED") < 3
    assert not warnings_in(caplog)


def test_trials_that_end_themselves_as_they_diverge_say_nothing(caplog: Any) -> None:
    """Three that return at a NaN, while no other has come further yet."""
    rows = [
        {"trial_id": f"t{k}", "training_iteration": t, "loss": float("nan") if t == 2 else 1.0}
        for k in range(4)
        for t in (1, 2)
    ]
    sweep = Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min")
    replay(sweep, ts.BoundASHAScheduler(100, on_nonfinite="ignore"), workers=2)
    replay(sweep, None, ts.ForecastStopper("loss", "min", max_t=100), workers=2)
    assert not warnings_in(caplog)


def test_compare_says_it_once_for_each_rule(caplog: Any) -> None:
    """Not once for each order of the trials."""
    rules = {"wrong": lambda: ts.AutoScheduler(1000), "right": lambda: ts.AutoScheduler(6)}
    found = compare(recorded(), rules, orderings=3, workers=2, processes=1)
    (said,) = warnings_in(caplog)
    assert found.notes == [said]
    assert said.startswith("wrong on mine: AutoScheduler: max_t=1000 does not fit")


def test_compare_says_where_a_thinned_sweep_has_other_units(caplog: Any) -> None:
    """An iteration of 300 is one of 60 then, and max_t=300 is nowhere near."""
    rules = {"fixed": lambda: ts.AutoScheduler(300), "its own": lambda s: ts.AutoScheduler(s.max_t)}
    found = compare(recorded(6, 300), rules, orderings=1, workers=2, processes=1)
    (note,) = found.notes
    assert note.startswith("fixed on mine: ")
    assert "thinned to 60 reports, counted anew: take max_t from the sweep" in note


def test_the_command_line_says_it(tmp_path: Path, capsys: Any, caplog: Any) -> None:
    """In `replay`, in its report, and in `compare`, in words and for machines; once."""
    path, page = tmp_path / "sweep.parquet", tmp_path / "page.html"
    recorded().to_parquet(path)
    wanted = ["replay", str(path), "--scheduler", "AutoScheduler(1000)", "--workers", "2"]
    assert main([*wanted, "--report", str(page)]) == 0
    assert LINE in capsys.readouterr().out
    assert "max_t=1000 does not fit" in page.read_text()
    assert main([*wanted, "--json"]) == 0
    (note,) = json.loads(capsys.readouterr().out)["notes"]
    assert LINE in note
    rules = tmp_path / "rules.toml"
    rules.write_text("[rules]\nwrong = 'AutoScheduler(1000)'\n")
    assert main(["compare", str(path), "--rules", str(rules), "--orderings", "2"]) == 0
    assert capsys.readouterr().out.count(LINE) == 1
    assert not warnings_in(caplog)


def test_in_a_real_sweep_and_in_what_is_told_of_it(
    ray_session: None, tmp_path: Path, caplog: Any
) -> None:
    """One warning while it runs; `explain` and the report say the same of the folder."""

    def train(config: dict[str, Any]) -> None:
        for t in range(1, 4):
            tune.report({"loss": config["lr"] + 1 / t, "step": 330 * t})

    with caplog.at_level(logging.WARNING, "tune_stoppers"):
        tune.Tuner(
            train,
            param_space={"lr": tune.grid_search([1.0, 2.0, 3.0, 4.0])},
            tune_config=tune.TuneConfig(
                metric="loss", mode="min", scheduler=ts.AutoScheduler(1000), reuse_actors=True
            ),
            run_config=tune.RunConfig(name="sweep", storage_path=str(tmp_path), verbose=0),
        ).fit()
    (said,) = warnings_in(caplog)
    assert LINE in said
    (told,) = Explained.at(tmp_path / "sweep").notes
    assert told.replace("4 trials", "3 trials") == said
    assert told in experiment_story(tmp_path / "sweep").notes


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_pickle_of_an_earlier_version_still_works(name: str) -> None:
    """Ray's snapshot holds the scheduler: it had no watch, and its rules one set of rungs."""
    scheduler = SCHEDULERS[name](max_t=6, grace_period=1)
    state = scheduler.__getstate__() | {"_memory": scheduler._memory, "decisions": {}}
    state["_memory"].record = None
    rule_state = {k: v for k, v in vars(scheduler.rule).items() if k != "fine_rungs"}
    rule = object.__new__(type(scheduler.rule))
    rule.__setstate__(rule_state)
    restored = object.__new__(type(scheduler))
    restored.__setstate__(state | {"rule": rule})
    assert replay(recorded(), restored, workers=2).reports < 72


def test_a_stoppers_pickle_of_an_earlier_version_still_works() -> None:
    """It is pickled with all that it knows."""
    stopper = ts.ForecastStopper("loss", "min", max_t=1000)
    state = stopper.__getstate__()
    del state["_horizon"]
    restored = object.__new__(ts.ForecastStopper)
    restored.__setstate__(state)
    assert replay(recorded(), None, restored, workers=2).notes
