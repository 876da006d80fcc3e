"""`replay` and what its result says of a sweep."""

import math
import os
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, HyperBandScheduler, MedianStoppingRule
from ray.tune.stopper import MaximumIterationStopper

from tune_stoppers import BoundASHAScheduler, PatienceStopper
from tune_stoppers.backtest.cluster import StalledError
from tune_stoppers.backtest.replay import replay
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.recorded.table import Curve


def sweep(curves: dict[str, list[float]], mode: str = "min", **options) -> Sweep:
    rows = [
        {"trial_id": name, "training_iteration": i, "value": value, "config/name": name}
        for name, values in curves.items()
        for i, value in enumerate(values, start=1)
    ]
    return Sweep.from_frame(pd.DataFrame(rows), metric="value", mode=mode, **options)


CURVES = {"a": [5.0, 4.0, 3.0], "b": [6.0, 5.0, 1.0], "c": [4.0, 4.0, 4.0], "d": [9.0, 8.0, 7.0]}


def random_sweep(trials: int = 40, length: int = 9) -> Sweep:
    dice = np.random.default_rng(7)
    shape = dice.random((trials, 1)) + dice.random((trials, 1)) / np.arange(1, length + 1)
    return sweep({f"t{i:02d}": row.tolist() for i, row in enumerate(shape)})


def test_without_rules_everything_runs_and_nothing_is_saved():
    """All reports are used, the best is found, regret and savings are zero."""
    result = replay(sweep(CURVES), workers=2, order="recorded")
    assert (result.reports, result.seconds, result.work) == (12, 6.0, 12.0)
    assert (result.savings, result.regret, result.best, result.best_stopped) == (0, 0, 1.0, False)
    assert set(result.trials["ended_by"]) == {"trial"}


def test_savings_and_regret_by_hand():
    """Stopped after one report each: 4 of 12 reports; incumbent 4, best 1, the median of the bests
    1, 3, 4, 7 is 3.5: the regret (4 - 1)/(3.5 - 1) is clipped to 1, that of 2.5 is 0.6."""
    result = replay(sweep(CURVES), stopper=MaximumIterationStopper(1), order="recorded")
    assert (result.reports, result.savings, result.best) == (4, 1 - 4 / 12, 4.0)
    assert (result.best_stopped, result.best_stopped_cost) == (True, 3.0)
    assert result.regret == 1.0
    assert result.regret_of(2.5) == 0.6


def test_a_trial_stopped_after_its_best_report_is_no_loss():
    """Only a best value that was never reported counts as stopped."""
    recorded = sweep({"a": [1.0, 5.0, 5.0], "b": [3.0, 2.0, 2.0]})
    result = replay(recorded, stopper=MaximumIterationStopper(2))
    assert (result.best_stopped, result.best_stopped_cost, result.regret) == (False, 0.0, 0.0)


def test_the_incumbent_is_the_best_report_so_far():
    """A row for each improvement, at its time and number of reports, for either mode."""
    for mode, sign in (("min", 1), ("max", -1)):
        curves = {name: [sign * v for v in values] for name, values in CURVES.items()}
        result = replay(sweep(curves, mode), workers=1, order="recorded")
        assert result.incumbent.to_numpy().tolist() == [
            [1.0, 1, "a", sign * 5.0],
            [2.0, 2, "a", sign * 4.0],
            [3.0, 3, "a", sign * 3.0],
            [6.0, 6, "b", sign * 1.0],
        ]


def test_diverged_trials_do_not_set_the_scale():
    """Neither NaN, infinity nor a huge value stretches the denominator; as incumbents they are
    worst."""
    wild = {"e": [math.nan, math.inf, math.nan], "f": [1e18, math.nan, 2e18]}
    tame = replay(sweep(CURVES), stopper=MaximumIterationStopper(1), order="recorded")
    both = replay(sweep(CURVES | wild), stopper=MaximumIterationStopper(1), order="recorded")
    assert both.best == tame.best
    assert both.regret_of(4.0) == 3 / 4.5  # the median is now 5.5: two more trials are worst
    assert both.regret_of(math.nan) == 1.0
    mostly = replay(sweep({"a": [2.0], "b": [4.0], "c": [math.nan], "d": [math.inf]} | wild))
    assert mostly.regret_of(3.0) == 0.5  # over those with a finite best: 2, 4 and 1e18
    none = replay(sweep(wild | {"f": [math.nan]}))
    assert (none.regret, math.isnan(none.best), none.best_stopped) == (1.0, True, False)


def test_a_sweep_of_equals_has_regret_zero_or_one():
    """Where the typical trial is as good as the best there is nothing to divide by."""
    result = replay(sweep({"a": [2.0, 1.0], "b": [2.0, 1.0]}), stopper=MaximumIterationStopper(1))
    assert result.regret == 1.0
    assert replay(sweep({"a": [2.0, 1.0], "b": [2.0, 1.0]})).regret == 0.0


def test_a_budget_closes_the_cluster_and_nothing_comes_before_its_time():
    """No report after the budget; the work under way counts; what never began is PENDING."""
    result = replay(sweep(CURVES), workers=1, order="recorded", budget=4.5)
    assert (result.reports, result.seconds, result.work) == (4, 4.5, 4.5)
    assert result.trials["status"].tolist() == ["TERMINATED", "RUNNING", "PENDING", "PENDING"]
    assert result.trials["ended_by"].tolist() == ["trial", "", "", ""]
    assert not result.best_stopped  # nobody stopped it: time was up
    assert replay(sweep(CURVES), max_reports=5).reports == 5


def test_the_time_to_the_target():
    """When the incumbent first gets there; None if it never does or there is no target."""
    result = replay(sweep(CURVES, target=3.0), workers=1, order="recorded")
    assert result.time_to_target == 3.0
    assert replay(sweep(CURVES, target=0.5)).time_to_target is None
    assert replay(sweep(CURVES)).time_to_target is None


def test_the_order_is_drawn_from_the_seed_alone():
    """One seed, one order, for every rule; another seed, another order."""
    recorded = random_sweep()
    first = replay(recorded, seed=1).trials["trial_id"].tolist()
    stopped = replay(recorded, stopper=MaximumIterationStopper(2), seed=1)
    assert stopped.trials["trial_id"].tolist() == first
    assert replay(recorded, seed=2).trials["trial_id"].tolist() != first
    assert replay(recorded, order="recorded").trials["trial_id"].tolist() == recorded.trial_ids


def test_a_replay_repeats_itself_and_touches_nothing():
    """Ray's own schedulers draw from the global generators: the same every time, and the
    scheduler given and the generators are as they were."""
    scheduler = ASHAScheduler(max_t=9, brackets=3)
    state, numbers = random.getstate(), np.random.get_state()[1].tolist()
    before = scheduler.debug_string()
    results = [replay(random_sweep(), scheduler, seed=3) for _ in range(2)]
    pd.testing.assert_frame_equal(results[0].journal, results[1].journal)
    assert scheduler.debug_string() == before
    assert scheduler.metric is None
    assert (random.getstate(), np.random.get_state()[1].tolist()) == (state, numbers)


def test_a_scheduler_keeps_its_own_metric_and_mode():
    """As where TuneConfig leaves them out."""
    recorded = random_sweep()
    own = replay(recorded, ASHAScheduler(max_t=9, metric="value", mode="min"), seed=3)
    given = replay(recorded, ASHAScheduler(max_t=9), seed=3)
    pd.testing.assert_frame_equal(own.journal, given.journal)


RAYS = {
    "fifo": FIFOScheduler,
    "asha": lambda: ASHAScheduler(max_t=9, reduction_factor=2),
    "median": lambda: MedianStoppingRule(time_attr="training_iteration", grace_period=2),
    "hyperband": lambda: HyperBandScheduler(max_t=9),
}


@pytest.mark.parametrize("name", RAYS)
@pytest.mark.parametrize("checkpoint_every", [0, 1, 3])
def test_rays_schedulers_run_unchanged(name, checkpoint_every):
    """Every trial comes to an end, and no trial reports past its record."""
    result = replay(random_sweep(), RAYS[name](), workers=4, checkpoint_every=checkpoint_every)
    assert set(result.trials["status"]) == {"TERMINATED"}
    assert (result.log["time"].diff().dropna() >= 0).all()
    assert result.reports == result.trials["reports"].sum() == len(result.log)
    if name == "asha":
        assert result.savings > 0.2


def test_costs_lower_the_savings():
    """HyperBand pauses: what its resumes cost is part of its work."""
    free = replay(random_sweep(), RAYS["hyperband"](), workers=4)
    paid = replay(random_sweep(), RAYS["hyperband"](), workers=4, resume_cost=0.5)
    resumes = (paid.journal["action"] == "resume").sum()
    assert resumes > 0
    assert paid.work == pytest.approx(paid.reports + 0.5 * resumes)
    assert paid.savings < free.savings


def test_where_ray_would_hang_the_replay_raises_or_ends():
    """Trials that end before their HyperBand rung leave the rest waiting for ever."""
    recorded = sweep({str(i): [float(i)] * n for i, n in enumerate([9, 9, 7, 9, 5, 9])})
    options = {"workers": 1, "order": "recorded"}
    with pytest.raises(StalledError):
        replay(recorded, HyperBandScheduler(max_t=9), **options)
    result = replay(recorded, HyperBandScheduler(max_t=9), on_stall="end", **options)
    assert result.stalled
    assert "PAUSED" in set(result.trials["status"])


def test_pausing_for_ever_is_an_error():
    """A scheduler that pauses trials without checkpoints at every report never gets on."""

    class Restless(FIFOScheduler):
        def on_trial_result(self, controller, trial, result):
            return self.PAUSE

    with pytest.raises(RuntimeError, match="keeps pausing trials"):
        replay(sweep(CURVES), Restless(), checkpoint_every=0)


def test_trials_have_storage_only_if_asked(tmp_path):
    """A scheduler that writes state finds a local folder; by default there is none."""

    class Writer(FIFOScheduler):
        def on_trial_result(self, controller, trial, result):
            if trial.storage is not None:
                path = f"{trial.storage.experiment_fs_path}/state.txt"
                with trial.storage.storage_filesystem.open_output_stream(path) as stream:
                    stream.write(trial.trial_id.encode())
            return self.CONTINUE

    replay(sweep(CURVES), Writer(), folder=tmp_path / "run")
    assert (tmp_path / "run" / "state.txt").read_text() in CURVES
    assert replay(sweep(CURVES), Writer()).reports == 12


WRONG = {
    "workers": (0, "workers must be at least 1, got 0"),
    "order": ("sorted", "order must be 'shuffled' or 'recorded', got 'sorted'"),
    "cost": ("seconds", "has no time_total_s; use cost='reports'"),
    "start_cost": (-1.0, "start_cost must be 0 or more"),
    "budget": (math.inf, "budget must be 0 or more and finite"),
    "failure_rate": (1.0, r"failure_rate must be in \[0, 1\)"),
    "max_failures": (-2, "max_failures must be -1"),
    "checkpoint_every": (-1, "checkpoint_every must be 0"),
    "metric": ("valu", "did you mean 'value'"),
    "mode": ("best", "mode must be 'min' or 'max'"),
    "on_stall": ("wait", "on_stall must be 'raise' or 'end'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_unfit_arguments_are_named(name):
    """The rule broken and the value got, before anything runs."""
    value, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        replay(sweep(CURVES), **{name: value})


def test_rules_must_be_rays():
    """A class or a string in place of an instance is a TypeError."""
    with pytest.raises(TypeError, match="must be a Ray TrialScheduler, got type"):
        replay(sweep(CURVES), FIFOScheduler)
    with pytest.raises(TypeError, match="must be a Ray Stopper, got str"):
        replay(sweep(CURVES), stopper="patience")


def published() -> list[Path]:
    """Recorded sweeps of three families, from beside the checkout or TUNE_STOPPERS_CURVES."""
    default = Path(__file__).parents[2].parent / "shared" / "curves"
    folder = Path(os.environ.get("TUNE_STOPPERS_CURVES", default))
    names = ("taskset_imdb_patch32_GRU128_bs128", "opda_deberta_base_mnli", "algoperf_ogbg")
    return [path for name in names if (path := folder / f"{name}.parquet").exists()]


@pytest.mark.skipif(not published(), reason="no recorded sweeps; set TUNE_STOPPERS_CURVES")
def test_asha_saves_most_of_the_published_sweeps():
    """On real curves of three families ASHA spends under half; where runs do not end at a target,
    the incumbent is better than half the trials."""
    for path in published():
        recorded = Sweep.from_parquet(path)
        asha = ASHAScheduler(max_t=recorded.max_t, grace_period=2, reduction_factor=3)
        result = replay(recorded, asha)
        assert 0.5 < result.savings < 1.0, path.name
        assert recorded.target or result.regret < 0.5, path.name


def test_the_journal_says_why_a_rule_stopped_a_trial():
    """Stoppers and schedulers of ours give their reasons; plain Ray ones leave it empty."""
    flat = sweep({"a": [1.0] * 6, "b": [2.0] * 6, "c": [3.0] * 6})
    stopper = PatienceStopper("value", "min", patience=2, start_after=4)
    stops = replay(flat, BoundASHAScheduler(6, 1), stopper, workers=3, order="recorded").journal
    reasons = stops[stops["action"] == "stop"].set_index("trial_id")["reason"]
    assert "is rank 3 of 3 at rung 1" in reasons["c"]
    assert "3 of 2 evaluations without improvement" in reasons["a"]
    plain = replay(flat, stopper=MaximumIterationStopper(2)).journal
    assert set(plain["reason"]) == {""}


@pytest.mark.parametrize("names", [("loss", "loss/val"), ("loss/val", "loss")])
def test_a_metric_may_begin_with_the_name_of_another(names):
    """ "loss" beside "loss/val", in either order, also of hyperparameters: a stopper sees both."""
    rows = [
        {"trial_id": "a", "training_iteration": i}
        | dict.fromkeys(names, 1.0)
        | {"config/opt": "adam", "config/opt/lr": 0.1}
        for i in range(1, 11)
    ]
    recorded = Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min")
    for name in names:
        assert replay(recorded, None, PatienceStopper(name, "min", patience=2)).reports == 3


def test_a_trial_that_never_reported_the_metric_is_in_the_log():
    """Without a value, as in `Curve.losses`."""
    curves = [
        Curve(trial, {}, np.array([1, 2]), {name: np.ones(2)})
        for trial, name in (("a", "value"), ("b", "other"))
    ]
    recorded = Sweep(curves, name="mixed")
    log = replay(recorded, metric="value", mode="min").log
    assert log.groupby("trial_id")["value"].count().to_dict() == {"a": 2, "b": 0}


def test_seconds_that_are_all_zero_are_no_clock():
    """A replay would take no time, and nothing could be saved."""
    recorded = sweep(CURVES).frame.assign(time_total_s=0.0)
    recorded = Sweep.from_frame(recorded, metric="value", mode="min")
    with pytest.raises(ValueError, match="all times of sweep 'sweep' are 0 s; use cost='reports'"):
        replay(recorded, cost="seconds")
