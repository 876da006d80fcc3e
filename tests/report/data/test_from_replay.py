"""What is told of a replay."""

import numpy as np
import pandas as pd
import pytest
from ray.tune.schedulers import ASHAScheduler, HyperBandScheduler

from tune_stoppers import PatienceStopper, Sweep, replay
from tune_stoppers.report import replay_story


def recorded(trials=12, length=9, **options) -> Sweep:
    dice = np.random.default_rng(3)
    floors = dice.random((trials, 1))
    shape = floors + dice.random((trials, 1)) / np.arange(1, length + 1)
    rows = [
        {
            "trial_id": f"t{i}",
            "training_iteration": t,
            "loss": value,
            "grad_norm": 1 / t,
            "config/lr": 0.1 * i,
        }
        for i, values in enumerate(shape.tolist())
        for t, value in enumerate(values, start=1)
    ]
    return Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min", name="mine", **options)


def test_the_numbers_are_those_of_the_replay():
    """Savings, reports, best; every trial is there; the record goes on where the replay stopped."""
    result = replay(recorded(), ASHAScheduler(max_t=9, grace_period=1), workers=3)
    story = replay_story(result, rule="ASHA", rungs=(1, 4))
    assert (story.share, story.reports) == (result.savings, result.reports)
    assert story.spent == pytest.approx(result.work)
    assert story.best.best_value == result.best
    assert [trial.trial_id for trial in story.trials] == result.trials["trial_id"].tolist()
    assert len(story.lanes) == 3
    assert story.rungs == (1, 4)
    stopped = next(trial for trial in story.trials if trial.ending.kind == "stopped")
    assert stopped.ending.cause == "the scheduler"
    assert len(stopped.curve) + len(stopped.beyond) == 10  # the last report is in both
    assert story.incumbent[-1][1] == result.best
    assert stopped.extras["grad_norm"][0] == (1.0, 1.0)


def test_a_stopper_is_named_with_its_reason():
    """And a trial that ran its whole record is not called stopped."""
    story = replay_story(replay(recorded(), stopper=PatienceStopper("loss", "min", patience=3)))
    assert {trial.ending.cause for trial in story.trials} == {"ran to the last step"}  # all improve
    late = PatienceStopper("loss", "min", patience=2, min_delta=0.2)
    story = replay_story(replay(recorded(), stopper=late))
    stopped = [trial for trial in story.trials if trial.ending.cause == "PatienceStopper"]
    assert stopped
    assert "2 of 2 evaluations" in stopped[0].ending.reason


def test_pauses_failures_and_what_never_started():
    """Are on the time line, and trials whose turn never came are told."""
    result = replay(recorded(), HyperBandScheduler(max_t=9), workers=4, on_stall="end")
    story = replay_story(result)
    assert any(event.kind == "pause" for trial in story.trials for event in trial.events)
    assert any(span.opening == "resume" for trial in story.trials for span in trial.spans)
    failing = replay(recorded(), failure_rate=0.2, max_failures=1, checkpoint_every=0, seed=1)
    story = replay_story(failing)
    assert any(span.opening == "restart" for trial in story.trials for span in trial.spans)
    assert any(trial.ending.kind == "failed" for trial in story.trials)
    early = replay_story(replay(recorded(), workers=2, budget=5))
    assert {trial.ending.cause for trial in early.trials} == {"unfinished", "never started"}


def test_a_surrogate_is_called_so():
    """It is no recorded run."""
    story = replay_story(replay(recorded(surrogate=True)))
    assert any("surrogate" in note for note in story.notes)


@pytest.mark.parametrize("costs", [{}, {"start_cost": 2.0, "save_cost": 0.5}])
def test_the_best_so_far_without_stopping_is_that_of_such_a_replay(costs):
    """The same trials in the same order on as many workers; its last point is the end."""
    options = {"workers": 3, "seed": 5, **costs}
    story = replay_story(replay(recorded(), ASHAScheduler(max_t=9, grace_period=1), **options))
    whole = replay(recorded(), **options)
    *found, end = story.unstopped
    best = whole.incumbent.groupby("time")["value"].min()  # several may improve at a time
    assert found == list(best.items())
    assert end == (whole.seconds, whole.best)
    assert replay_story(whole).unstopped == ()  # nothing was stopped: there is nothing to compare


def test_a_record_that_counts_from_zero_has_trained_at_zero():
    """Epochs 0, 1, …: a trial that made one report has a result, and a best may be there."""
    rows = [
        {"trial_id": f"t{i}", "training_iteration": t, "loss": float(i), "config/lr": 0.1 * i}
        for i in range(12)
        for t in range(5 if i < 6 else 1)
    ]
    sweep = Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min")
    story = replay_story(replay(sweep), rule="no stopping")
    assert story.judged == 12
    assert sorted(story.outcomes) == [float(i) for i in range(12)]
