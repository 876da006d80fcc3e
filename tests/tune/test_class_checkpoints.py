"""Class trainables: which report their checkpoints belong to, and what follows from it."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.train._internal.storage import StorageContext
from ray.tune.experiment import Trial

from tests.stand_ins.watched import BEGIN, BIRTH, write_journal
from tune_stoppers import (
    PatienceStopper,
    PromotionASHAScheduler,
    RollbackScheduler,
    best_state,
    best_states,
    checkpoint_config,
)
from tune_stoppers.experiment.class_checkpoints import claims_in, rightful
from tune_stoppers.experiment.folder import ExperimentError
from tune_stoppers.journal.lines import FORGOT, SAVING, Line, read_journal
from tune_stoppers.tune.class_checkpoints import saving_at

RUN = f"{BIRTH}-PatienceStopper-0123abcd"


# -- what Ray will do ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "result", "sure"),
    [
        ({"checkpoint_frequency": 2}, {"training_iteration": 4}, True),
        ({"checkpoint_frequency": 2}, {"training_iteration": 5}, False),
        ({}, {"training_iteration": 5, "should_checkpoint": True}, True),
        ({"checkpoint_at_end": True}, {"training_iteration": 5}, False),
        ({"checkpoint_at_end": True}, {"training_iteration": 5, "done": True}, True),
        ({"checkpoint_at_end": False}, {"training_iteration": 5, "done": True}, False),
    ],
)
def test_it_is_known_before_it_is_written(
    tmp_path: Path, config: dict[str, Any], result: dict[str, Any], sure: bool
) -> None:
    """By the frequency, at the end, or as the trainable asks; and under which name."""
    trial = Trial("t", stub=True, checkpoint_config=tune.CheckpointConfig(**config))
    trial.storage = StorageContext(
        storage_path=str(tmp_path), experiment_dir_name="e", trial_dir_name="t"
    )
    trial.storage.current_checkpoint_index = 6
    saving = saving_at(trial, result)
    assert saving is not None
    assert (saving.name, saving.sure) == ("checkpoint_000007", sure)
    assert saving_at(trial, result | {"checkpoint_dir_name": None}) is None  # a function's
    assert saving_at(None, result) is None


# -- what a journal says ---------------------------------------------------------------------------


def claim(at: float, iteration: Any, number: int, **more: Any) -> Line:
    line: Line = {"time": BEGIN + at, "trial": "a0000", "event": SAVING}
    return line | {"saves": f"checkpoint_{number:06d}", "iteration": iteration} | more


def trial(folder: Path, losses: list[float], checkpoints: list[int]) -> Path:
    """A class trainable's folder: a report every ten seconds, and these checkpoints."""
    place = folder / "train_a0000_1"
    for number in checkpoints:
        (place / f"checkpoint_{number:06d}").mkdir(parents=True)
        (place / f"checkpoint_{number:06d}" / "weights").write_text("")
    (place / "params.json").write_text("{}")
    rows = [
        {"trial_id": "a0000", "training_iteration": i + 1, "loss": loss, "f1": -loss}
        | {"timestamp": int(BEGIN) + 10 * i, "done": False, "config": {"lr": loss / 10}}
        for i, loss in enumerate(losses)
    ]
    (place / "result.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


LOSSES = [5.0, 4.0, 3.0, 3.5, 3.6]
CLAIMS = [
    *(claim(0.5, 1, 0), claim(10.5, 2, 0), claim(20.5, 3, 1), claim(30.5, 4, 1)),
    claim(40.5, 5, 2),
]


def test_the_newest_report_with_a_name_has_it(tmp_path: Path) -> None:
    """Ray saved at the second and the fourth report; by any metric that was reported."""
    trial(tmp_path, LOSSES, [0, 1])
    write_journal(tmp_path, RUN, CLAIMS)
    best = best_state(tmp_path, "loss", "min")
    assert (best.step, best.value, best.config) == (4, 3.5, {"lr": 0.35})
    assert best.checkpoint.endswith("checkpoint_000001")
    assert best_state(tmp_path, "f1", "min").value == -4.0
    (row,) = best_states(tmp_path, "loss", "min").to_dict("records")
    assert (row["best_step"], row["checkpoint_step"]) == (3, 4)


def test_a_name_that_is_only_promised_again_stays_with_its_report(tmp_path: Path) -> None:
    """After a kill Ray counts from a lower number: until it saves, the old one is in the folder."""
    place = trial(tmp_path, LOSSES, [0, 1])
    for number, at in [(0, 11.0), (1, 31.0)]:
        os.utime(place / f"checkpoint_{number:06d}" / "weights", (BEGIN + at, BEGIN + at))
    write_journal(tmp_path, RUN, [*CLAIMS, claim(99.0, 3, 1), claim(100.0, 4, 2)])
    assert best_state(tmp_path, "loss", "min").step == 4
    os.utime(place / "checkpoint_000001" / "weights", (BEGIN + 100, BEGIN + 100))
    assert best_state(tmp_path, "loss", "min").step == 3


def test_what_ray_saves_twice_at_a_report_is_of_that_report(tmp_path: Path) -> None:
    """As PBT may have it do: the next report counts on from there."""
    trial(tmp_path, LOSSES, [1])
    write_journal(tmp_path, RUN, [*CLAIMS[:2], claim(20.5, 3, 2), claim(30.5, 4, 3)])
    best = best_state(tmp_path, "loss", "min")
    assert (best.step, Path(best.checkpoint).name) == (2, "checkpoint_000001")


def test_the_newest_may_be_torn_while_the_trial_runs(tmp_path: Path) -> None:
    """Ray saves after the report; the next report, or the trial's end, says that it has."""
    place = trial(tmp_path, LOSSES[:3], [0, 1])
    write_journal(tmp_path, RUN, CLAIMS[:3])
    assert best_state(tmp_path, "loss", "min").step == 2
    rows = (place / "result.json").read_text()
    (place / "result.json").write_text(rows.replace('"done": false', '"done": true'))
    assert best_state(tmp_path, "loss", "min").step == 3


def test_a_storage_without_times_has_the_newest() -> None:
    """Or one whose clock is far off."""
    claims = claims_in(CLAIMS)["a0000"]["checkpoint_000000"]
    assert rightful(claims, lambda: None).iteration == 2
    assert rightful(claims, lambda: 0.0).iteration == 2


def test_a_trial_that_never_was_claims_nothing() -> None:
    """Another trial has its id since."""
    gone: Line = {"time": BEGIN, "trial": "", "event": FORGOT, "trials": ["a0000"]}
    assert claims_in([*CLAIMS, gone]) == {}


@pytest.mark.parametrize("odd", [{"saves": 3}, {"saves": None}, {"event": "else"}])
def test_a_line_that_says_nothing_is_passed_over(odd: dict[str, Any]) -> None:
    """It was written by somebody else."""
    assert claims_in([claim(1, 1, 0, **odd), claim(1, "x", 0)]) == {}


def test_without_a_journal_it_is_said_what_helps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No guess: Ray's own results know."""
    trial(tmp_path, LOSSES, [0, 1])
    with pytest.raises(ExperimentError, match=r"2 checkpoints of class.*\.get_results\(\)"):
        best_state(tmp_path, "loss", "min")
    with caplog.at_level(logging.WARNING, "tune_stoppers"):
        (row,) = best_states(tmp_path, "loss", "min").to_dict("records")
        write_journal(tmp_path, RUN, CLAIMS[2:])
        assert best_state(tmp_path, "loss", "min").step == 4
    assert row["checkpoint"] is None
    said = [record.getMessage() for record in caplog.records]
    assert ["Of 2 checkpoints" in said[0], "left out of the best" in said[1]] == [True, True]


# -- in a real Ray ---------------------------------------------------------------------------------

CURVE = [5.0, 4.0, 3.0, 3.5, 2.9, 3.1, 3.8, 3.9, 4.0, 4.1]


class Classic(tune.Trainable):
    """Follows the curve; its checkpoint says how far it is, and at which learning rate."""

    def setup(self, config: dict[str, Any]) -> None:
        self.made = 0

    def step(self) -> dict[str, Any]:
        self.made += 1
        loss = CURVE[self.made - 1] * self.config["lr"]
        done = self.made == len(CURVE)
        return {"done": done} | ({} if self.config.get("rare") and done else {"loss": loss})

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        state = {"made": self.made, "lr": self.config["lr"]}
        Path(checkpoint_dir, "state.json").write_text(json.dumps(state))

    def load_checkpoint(self, checkpoint: Any) -> None:
        self.made = json.loads(Path(checkpoint, "state.json").read_text())["made"]


def fit(folder: Path, *, space: Any = None, scheduler: Any = None, **run: Any) -> tune.ResultGrid:
    results = tune.Tuner(
        Classic,
        param_space={"lr": 1.0} if space is None else space,
        tune_config=tune.TuneConfig(scheduler=scheduler),
        run_config=tune.RunConfig(name="sweep", storage_path=str(folder), verbose=0, **run),
    ).fit()
    assert not results.errors
    return results


def checked(results: Any) -> Iterator[tuple[float, float]]:
    """Step and learning rate of each trial's best checkpoint, which are those in its folder."""
    for row in best_states(results, "loss", "min").to_dict("records"):
        state = json.loads(Path(row["checkpoint"], "state.json").read_text())
        assert state == {"made": row["checkpoint_step"], "lr": row["config/lr"]}
        assert row["checkpoint_value"] == CURVE[state["made"] - 1] * state["lr"]
        yield state["made"], state["lr"]


@pytest.mark.parametrize(("every", "best"), [(1, 5), (2, 6)])
def test_the_best_is_kept_and_found(
    ray_session: None, tmp_path: Path, every: int, best: int
) -> None:
    """By the results and by the folder; by Ray's own frequency, with one kept beside the last."""
    results = fit(
        tmp_path,
        stop=PatienceStopper("loss", "min", patience=4),
        checkpoint_config=checkpoint_config("loss", "min", every=every),
    )
    assert list(checked(results)) == list(checked(tmp_path / "sweep")) == [(best, 1.0)]
    assert len(list(Path(results[0].path).glob("checkpoint_*"))) == 2


def test_a_last_report_without_the_metric_costs_no_best(ray_session: None, tmp_path: Path) -> None:
    """Ray saves at the end, takes what it cannot compare for the best, and would delete it."""
    results = fit(
        tmp_path,
        space={"lr": 1.0, "rare": True},
        stop=PatienceStopper("loss", "min", patience=9),
        checkpoint_config=checkpoint_config("loss", "min", every=1),
    )
    assert list(checked(results)) == list(checked(tmp_path / "sweep")) == [(5, 1.0)]


def test_nobody_watched(ray_session: None, tmp_path: Path) -> None:
    """Ray's results know; the folder does not, and Ray can be asked again."""
    results = fit(tmp_path, checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=2))
    assert list(checked(results)) == [(6, 1.0)]
    with pytest.raises(ExperimentError, match="get_results"):
        best_state(tmp_path / "sweep", "loss", "min")
    again = tune.Tuner.restore(str(tmp_path / "sweep"), Classic).get_results()
    assert list(checked(again)) == [(6, 1.0)]


@pytest.mark.parametrize(("every", "back"), [(1, 5), (2, 6)])
def test_it_goes_back_to_its_best(ray_session: None, tmp_path: Path, every: int, back: int) -> None:
    """At a lower rate, though Ray was told to keep one checkpoint."""
    scheduler = RollbackScheduler(patience=3, max_rollbacks=1, metric="loss", mode="min")
    checkpoints = tune.CheckpointConfig(checkpoint_frequency=every, num_to_keep=1)
    results = fit(tmp_path, scheduler=scheduler, checkpoint_config=checkpoints)
    (journal,) = (tmp_path / "sweep").glob("tune_stoppers/*/journal-*.jsonl")
    went = [line for line in read_journal(journal) if line.get("event") == "rollback"]
    assert [line["numbers"]["step"] for line in went] == [back]
    assert results[0].metrics["config"]["lr"] == 0.5
    ((step, rate),) = checked(results)
    assert (step > back, rate) == (True, 0.5)  # half the loss from there on
    assert list(checked(tmp_path / "sweep")) == [(step, rate)]


def test_it_can_be_paused_at_any_report(ray_session: None, tmp_path: Path) -> None:
    """Without a frequency Ray saves it then, and at the end."""
    scheduler = PromotionASHAScheduler(9, 1, pen=3, metric="loss", mode="min")
    space = {"lr": tune.grid_search([1.0, 2.0, 3.0])}
    results = fit(tmp_path, space=space, scheduler=scheduler)
    found = list(checked(results))
    assert found == list(checked(tmp_path / "sweep"))
    assert (3, 1.0) in found
    assert {rate for _, rate in found} == {1.0, 2.0, 3.0}
    assert max(result.metrics["training_iteration"] for result in results) == 9
