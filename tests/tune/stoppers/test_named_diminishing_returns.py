"""`DiminishingReturnsStopper` ends a real sweep and a replayed one, in the metric's own units."""

import pickle
import random

import numpy as np
import pandas as pd
import pytest
from ray import tune

from tests.stand_ins.ray_runs import fit
from tune_stoppers import PatienceStopper, replay
from tune_stoppers.journal.lines import read_journal
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.rules.sweep.diminishing_returns import DiminishingReturns
from tune_stoppers.tune.stoppers.named import DiminishingReturnsStopper

LENGTH = 8


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self):
        return self.now


def alike(count, sign=1, seed=0):
    """Trials that differ by no more than the noise of an evaluation."""
    dice = random.Random(seed)
    for _ in range(count):
        yield [sign * (1 + t**-2.0 + dice.gauss(0, 0.02)) for t in range(1, LENGTH + 1)]


def run(stopper, curves, name="t"):
    """The results shown up to the sweep's end, each trial's last one twice as Ray does."""
    shown = []
    for number, values in enumerate(curves):
        for step, value in enumerate([*values, values[-1]], start=1):
            result = {"training_iteration": min(step, LENGTH), "x": value, "done": step > LENGTH}
            stopper(f"{name}{number}", result)
            shown.append(result)
            if stopper.stop_all():
                return shown
    return shown


@pytest.mark.parametrize(("mode", "sign"), [("min", 1), ("max", -1)])
def test_it_ends_the_sweep_in_either_direction(mode, sign):
    """At the same report, with what is left on the table in the metric's own units."""
    stopper = DiminishingReturnsStopper("x", mode, min_trials=10)
    shown = run(stopper, alike(40, sign))
    assert stopper.stop_all()
    assert 10 * LENGTH < len(shown) < 20 * (LENGTH + 1)
    reason = shown[-1]["stop_reason"]
    assert reason.startswith("DiminishingReturnsStopper: 0.")
    assert " is expected to be left on the table" in reason
    best = min(sign * result["x"] for result in shown)
    assert f"to better {sign * best:.6g} by 0." in reason


def test_pickling_keeps_what_all_trials_share():
    """Tune pickles stoppers with the experiment: both end at the same report."""
    stopper = DiminishingReturnsStopper("x", "min", min_trials=10)
    run(stopper, alike(9))
    assert not stopper.stop_all()
    again = pickle.loads(pickle.dumps(stopper))
    ours = run(stopper, alike(30, seed=1), "n")
    theirs = run(again, alike(30, seed=1), "n")
    assert stopper.stop_all()
    assert ours == theirs


def test_hours_are_by_a_clock_that_stands_still_while_the_sweep_is_down():
    """The gain is worth a short sweep and not a long one; a pickled clock goes on."""
    clock = Clock()
    curves = [[value + level for value in values] for level, values in enumerate(alike(12))]
    stopper = DiminishingReturnsStopper("x", "min", min_trials=10, patience=1, worth=0.2)
    stopper.use_clock(clock)
    run(stopper, curves)
    assert not stopper.stop_all()
    clock.now = 3600.0
    again = pickle.loads(pickle.dumps(stopper))
    run(again, curves[:1], "n")
    assert again.record.gain.needed == pytest.approx(0.2)
    assert not again.stop_all()
    clock.now = 100 * 3600.0
    shown = run(stopper, curves[:1], "n")
    assert stopper.stop_all()
    assert "the time is worth 20" in shown[-1]["stop_reason"]


def test_a_dry_run_ends_nothing_and_says_when_it_would_have():
    """In the results, from then on."""
    stopper = DiminishingReturnsStopper("x", "min", min_trials=10, dry_run=True)
    shown = run(stopper, alike(20))
    assert not stopper.stop_all()
    assert len(shown) == 20 * (LENGTH + 1)
    assert "left on the table" in shown[-1]["would_stop_reason"]


def test_it_combines_with_others(tmp_path):
    """One ends trials, the other the sweep; the decisions are in the journal."""
    journal = tmp_path / "decisions.jsonl"
    mine = DiminishingReturnsStopper("x", "min", min_trials=10, journal=journal)
    either = mine | PatienceStopper("x", "min", patience=50)
    run(either, alike(40))
    assert either.stop_all()
    last = [line for line in read_journal(journal) if "action" in line][-1]
    assert last["action"] == "STOP"
    assert last["numbers"]["expected"] <= last["numbers"]["noise"]


def spread(count, scale):
    """A recorded sweep of trials whose levels are that far apart."""
    dice = np.random.default_rng(0)
    rows = []
    for number, values in enumerate(alike(count)):
        level = dice.exponential(1) * scale
        for step, value in enumerate(values, start=1):
            rows.append((f"t{number:03d}", step, value + level))
    frame = pd.DataFrame(rows, columns=["trial_id", "training_iteration", "x"])
    return Sweep.from_frame(frame, metric="x", mode="min")


@pytest.mark.parametrize("gains", [False, True])
def test_in_a_replay_it_ends_what_has_nothing_left_and_nothing_else(gains):
    """Eight workers side by side, under no scheduler."""
    sweep = spread(120, 100 if gains else 0)
    result = replay(sweep, stopper=DiminishingReturnsStopper("x", "min"), workers=8)
    if gains:
        assert result.reports == 120 * LENGTH
    else:
        assert 30 * LENGTH < result.reports < 50 * LENGTH
        assert abs(result.best - result.best_recorded) < 0.05


def test_in_a_replay_hours_are_of_its_own_time():
    """A report takes a second of it, and next to nothing of a user's."""
    for worth, ends in ((1.0, False), (1e3, True)):
        stopper = DiminishingReturnsStopper("x", "min", worth=worth)
        result = replay(spread(120, 100), stopper=stopper, workers=8)
        assert (result.reports < 120 * LENGTH) is ends


def test_its_parameters_are_those_of_the_rule():
    """By the same names, `start_after` included."""
    given = {"patience": 2, "min_trials": 7, "ahead": 0.5, "noise": 2.0, "worth": 0.1}
    given |= {"max_t": 9, "start_after": 3}
    rule = DiminishingReturns(**given, on_nonfinite="ignore")
    assert DiminishingReturnsStopper("x", "max", **given, on_nonfinite="ignore").rule == rule


def test_a_misspelt_keyword_is_named():
    """As by every stopper."""
    with pytest.raises(TypeError, match="min_trial"):
        DiminishingReturnsStopper("x", "min", min_trial=3)
    with pytest.raises(ValueError, match="worth must be > 0, got -1"):
        DiminishingReturnsStopper("x", "min", worth=-1)


def trial(config):
    """Four reports, and the same level for all."""
    for step in range(1, 5):
        tune.report({"x": 1 + config["shift"] * 1e-9 + step**-2.0})


@pytest.mark.usefixtures("ray_session")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")
def test_a_real_sweep_ends_with_trials_never_started(tmp_path):
    """And the trial at whose report it ended says why."""
    results = fit(
        trial,
        DiminishingReturnsStopper("x", "min", min_trials=4, patience=2),
        tmp_path,
        {"shift": tune.grid_search(list(range(9)))},
        max_concurrent_trials=1,
        reuse_actors=True,
    )
    reported = [result for result in results if result.metrics and "x" in result.metrics]
    assert 4 <= len(reported) < 9
    reasons = [result.metrics.get("stop_reason", "") for result in reported]
    assert sum("left on the table" in reason for reason in reasons) == 1
