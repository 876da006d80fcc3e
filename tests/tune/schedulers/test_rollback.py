"""RollbackScheduler: who goes back, when and where to, with a stand-in for Ray's controller."""

import math
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ray.tune import CheckpointConfig
from ray.tune.experiment import Trial

from tests.stand_ins.rollback_stage import QUICK, Stage, events, journal_of
from tune_stoppers import RollbackScheduler, Sweep, replay
from tune_stoppers.rules.sweep.rollback import GONE, WENT_BACK


def test_a_plateau_leads_back_to_the_best(tmp_path: Path) -> None:
    """Paused, then chosen before anything else, with the old checkpoint and half the rate."""
    scheduler = RollbackScheduler(**QUICK)
    stage = Stage(tmp_path, scheduler)
    trial, waiting = stage.add(), stage.add("waiting")
    stage.start(trial)
    assert stage.curve(trial, [3, 1, 2, 2]) == ["CONTINUE"] * 3 + ["PAUSE"]
    assert "back to 1 at step 2, rollback 1 of 3" in scheduler.explain("t")
    assert stage.resume() == ("t", 2, {"lr": 0.5})
    assert events(scheduler, stage) == [
        (WENT_BACK, {"checkpoint": "checkpoint_000002", "step": 2, "lr": 0.5})
    ]
    assert scheduler.choose_trial_to_run(stage) is waiting
    assert scheduler.debug_string().endswith("1 rollbacks, 0 under way")


def test_steps_after_a_rollback_are_judged_again(tmp_path: Path) -> None:
    """They are no repeats of those before it, and the trial stops if it does not recover."""
    scheduler = RollbackScheduler(**QUICK)
    stage = Stage(tmp_path, scheduler)
    trial = stage.add()
    stage.start(trial)
    stage.curve(trial, [1, 2, 2])
    stage.resume()
    assert stage.curve(trial, [2, 2], after=1) == ["CONTINUE", "STOP"]
    assert "recovery" in trial.last_result["stop_reason"]


def test_divergence_leads_back_at_once_and_again(tmp_path: Path) -> None:
    """The rate is cut each time; after the last rollback the trial stops."""
    scheduler = RollbackScheduler(**QUICK | {"max_rollbacks": 2, "mode": "max"}, cooldown=0)
    stage = Stage(tmp_path, scheduler)
    trial = stage.add()
    stage.start(trial)
    assert stage.curve(trial, [1, math.nan])[-1] == "PAUSE"
    assert stage.resume() == ("t", 1, {"lr": 0.5})
    assert stage.report(trial, 2, -math.inf) == "PAUSE"
    assert stage.resume() == ("t", 1, {"lr": 0.25})
    assert stage.report(trial, 2, math.nan) == "STOP"
    assert "no rollback left of 2" in trial.last_result["stop_reason"]


def test_the_report_in_trouble_needs_no_checkpoint(tmp_path: Path) -> None:
    """`TuneCallback` saves where the metric improved, and nowhere else."""
    stage = Stage(tmp_path, RollbackScheduler(**QUICK))
    trial = stage.add()
    stage.start(trial)
    stage.report(trial, 1, 1)
    assert stage.curve(trial, [2, 2], after=1, saves=False) == ["CONTINUE", "PAUSE"]
    assert stage.resume()[1] == 1


def test_its_own_checkpoint_may_be_the_best_one(tmp_path: Path) -> None:
    """Ray registers it when it pauses the trial."""
    stage = Stage(tmp_path, RollbackScheduler(**QUICK))
    trial = stage.add()
    stage.start(trial)
    stage.curve(trial, [1, 2], saves=False)
    assert stage.report(trial, 3, 2) == "PAUSE"
    assert stage.resume() == ("t", 3, {"lr": 0.5})


def test_without_a_checkpoint_it_only_waits_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The decision-only recovery."""
    scheduler = RollbackScheduler(**QUICK)
    stage = Stage(tmp_path, scheduler)
    for name in "ab":
        trial = stage.add(name)
        stage.start(trial)
        assert stage.curve(trial, [1, 2, 2, 2, 2], saves=False)[-2:] == ["CONTINUE", "STOP"]
        assert "no checkpoint to go back to" in trial.last_result["stop_reason"]
    assert caplog.text.count("no checkpoint to go back to") == 1


@pytest.mark.parametrize("gone_when", ["before the pause", "after it"])
def test_a_checkpoint_that_vanished_is_seen_in_time(tmp_path: Path, gone_when: str) -> None:
    """The trial goes on as it is, with time to recover."""
    scheduler = RollbackScheduler(**QUICK)
    stage = Stage(tmp_path, scheduler)
    trial = stage.add()
    stage.start(trial)
    stage.curve(trial, [1, 2])
    best = tmp_path / "t" / "checkpoint_000001"
    if gone_when == "before the pause":
        shutil.rmtree(best)
    action = stage.report(trial, 3, 2)
    if gone_when == "after it":
        assert action == "PAUSE"
        shutil.rmtree(best)
        assert stage.resume() == ("t", 3, {"lr": 1.0})
    else:
        assert action == "CONTINUE"
    assert events(scheduler, stage) == [(GONE, {"checkpoint": "checkpoint_000001"})]
    assert stage.curve(trial, [2, 2], after=3, saves=False) == ["CONTINUE", "STOP"]


def test_a_folder_of_the_same_name_is_not_the_same_checkpoint(tmp_path: Path) -> None:
    """After a restore Ray may count its checkpoints from further back."""
    stage = Stage(tmp_path, RollbackScheduler(**QUICK))
    trial = stage.add()
    stage.start(trial)
    stage.curve(trial, [1, 2])
    trial.run_metadata.checkpoint_manager.best_checkpoint_results[0].metrics[
        "training_iteration"
    ] = 7
    assert stage.report(trial, 3, 2) == "CONTINUE"


def test_the_best_is_kept_though_ray_was_told_to_keep_one(tmp_path: Path) -> None:
    """By recency, which would delete it at the next save."""
    stage = Stage(tmp_path, RollbackScheduler(**QUICK), checkpoints=CheckpointConfig(num_to_keep=1))
    trial = stage.add()
    stage.start(trial)
    assert stage.curve(trial, [4, 1, 2, 2])[-1] == "PAUSE"
    assert stage.resume() == ("t", 2, {"lr": 0.5})
    assert {path.name for path in (tmp_path / "t").iterdir()} == {
        "checkpoint_000002",
        "checkpoint_000004",
    }


def test_it_goes_back_once_it_is_paused(tmp_path: Path) -> None:
    """Ray saves first, and chooses others meanwhile."""
    scheduler = RollbackScheduler(**QUICK)
    stage = Stage(tmp_path, scheduler)
    trial, other = stage.add(), stage.add("other")
    stage.start(trial)
    assert stage.curve(trial, [1, 2, 2])[-1] == "PAUSE"
    trial.set_status(Trial.RUNNING)
    assert scheduler.choose_trial_to_run(stage) is other
    assert trial.config == {"lr": 1.0}
    trial.set_status(Trial.PAUSED)
    assert stage.resume() == ("t", 1, {"lr": 0.5})


def test_the_first_step_after_may_be_the_last_before(tmp_path: Path) -> None:
    """Where trials report seldom: it is judged and journalled as any other."""
    scheduler = RollbackScheduler(**QUICK | {"patience": 1})
    stage = Stage(tmp_path, scheduler)
    trial = stage.add()
    stage.start(trial)
    assert [stage.report(trial, 2, 1), stage.report(trial, 4, 5)] == ["CONTINUE", "PAUSE"]
    stage.resume()
    assert stage.report(trial, 4, 5) == "CONTINUE"
    assert [line["step"] for line in journal_of(scheduler, stage) if "action" in line] == [2, 4, 4]


def test_a_trial_that_saves_is_left_until_its_next_report(tmp_path: Path) -> None:
    """Ray would stop it at the end of the save."""
    stage = Stage(tmp_path, RollbackScheduler(**QUICK))
    trial = stage.add()
    stage.start(trial)
    stage.curve(trial, [1, 2])
    trial.temporary_state.saving_to = object()
    assert stage.report(trial, 3, 2) == "CONTINUE"
    trial.temporary_state.saving_to = None
    assert stage.report(trial, 4, 2) == "PAUSE"


def test_a_trial_that_dies_on_the_way_goes_back_when_it_is_tried_again(tmp_path: Path) -> None:
    """Ray adds it again, pending; nothing is left to do when it chooses."""
    scheduler = RollbackScheduler(**QUICK)
    stage = Stage(tmp_path, scheduler)
    trial = stage.add()
    stage.start(trial)
    assert stage.curve(trial, [1, 2, 2])[-1] == "PAUSE"
    scheduler.on_trial_error(stage, trial)
    trial.set_status(Trial.PENDING)
    scheduler.on_trial_add(stage, trial)
    assert stage.resume() == ("t", 1, {"lr": 0.5})
    assert len(events(scheduler, stage)) == 1


def test_a_trial_that_ends_on_the_way_is_let_go(tmp_path: Path) -> None:
    """By a user, or by the end of the sweep."""
    scheduler = RollbackScheduler(**QUICK)
    stage = Stage(tmp_path, scheduler)
    for ending in ("on_trial_remove", "on_trial_complete"):
        trial = stage.add(ending)
        stage.start(trial)
        stage.curve(trial, [1, 2, 2])
        last = [] if ending == "on_trial_remove" else [{"training_iteration": 3, "loss": 2}]
        getattr(scheduler, ending)(stage, trial, *last)
        trial.set_status(Trial.TERMINATED)
        assert scheduler.choose_trial_to_run(stage) is None
    assert events(scheduler, stage) == []


@pytest.mark.parametrize("options", [{"dry_run": True}, {"start_after": 9}])
def test_nobody_goes_back_in_shadow_mode_or_early(tmp_path: Path, options: Any) -> None:
    """What would have been done is in the journal."""
    scheduler = RollbackScheduler(**QUICK, **options)
    stage = Stage(tmp_path, scheduler)
    trial = stage.add()
    stage.start(trial)
    assert set(stage.curve(trial, [1, 2, 2, 2])) == {"CONTINUE"}
    assert "back to 1 at step 1" in scheduler.explain("t")
    assert events(scheduler, stage) == []


@pytest.mark.parametrize(
    ("policy", "actions"),
    [
        ("worst", ["CONTINUE", "PAUSE"]),
        ("stop", ["CONTINUE", "STOP"]),
        ("ignore", ["CONTINUE", "CONTINUE"]),
    ],
)
def test_values_that_are_not_finite(tmp_path: Path, policy: Any, actions: list[str]) -> None:
    """By default a divergence."""
    stage = Stage(tmp_path, RollbackScheduler(**QUICK, on_nonfinite=policy))
    trial = stage.add()
    stage.start(trial)
    assert stage.curve(trial, [1, math.nan]) == actions


def test_in_a_replay_trials_are_only_given_more_time() -> None:
    """No recorded curve knows what a lower rate would have done."""
    curves = {"good": [5.0, 4.0, 3.0, 2.0, 1.0, 0.5], "bad": [5.0, 6.0, 6.0, 6.0, 6.0, 6.0]}
    rows = [
        {"trial_id": name, "training_iteration": step, "loss": loss, "config/lr": 1.0}
        for name, losses in curves.items()
        for step, loss in enumerate(losses, start=1)
    ]
    sweep = Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min")
    scheduler = RollbackScheduler(patience=2, recovery_patience=2)
    ended = replay(sweep, scheduler).trials.set_index("trial_id")
    assert ended.loc["good", "reports"] == 6
    assert ended.loc["bad", "reports"] == 5
