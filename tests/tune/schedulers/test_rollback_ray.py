"""RollbackScheduler in real sweeps: trials that would have failed are rescued."""

from pathlib import Path
from typing import Any

import pytest
from ray import tune

from tests.stand_ins.descent import STEPS, descend, scheduler
from tune_stoppers import DivergenceStopper, RollbackScheduler
from tune_stoppers.journal.lines import Line, read_journal


def sweep(
    storage: Path,
    schedule: RollbackScheduler | None,
    rates: list[float],
    *,
    reuse_actors: bool = False,
    **run: Any,
) -> tune.ResultGrid:
    run_config = tune.RunConfig(storage_path=str(storage), name="exp", verbose=0, **run)
    return tune.Tuner(
        descend,
        param_space={"opt": {"lr": tune.grid_search(rates)}},
        tune_config=tune.TuneConfig(
            metric="eval/loss", mode="min", scheduler=schedule, reuse_actors=reuse_actors
        ),
        run_config=run_config,
    ).fit()


def journal_of(storage: Path) -> list[Line]:
    files = sorted(storage.glob("exp/tune_stoppers/*RollbackScheduler*/journal-*.jsonl"))
    return [line for file in files for line in read_journal(file)]


def test_without_it_they_fail(ray_session: None, tmp_path: Path) -> None:
    """What the others are measured against."""
    results = sweep(tmp_path, None, [1.6])
    assert results.num_errors == 1
    assert results[0].metrics["eval"]["loss"] > 1e3


FINE = [0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9]
ONE_CUT, TWO_CUTS = [1.1, 1.3, 1.6, 1.8], [2.5, 2.9, 3.5]


@pytest.mark.parametrize(
    ("rates", "reuse_actors"),
    [
        pytest.param([0.3, 1.6, 2.5], False, marks=pytest.mark.stress),
        ([*FINE, *ONE_CUT, *TWO_CUTS], True),
    ],
    ids=["own processes", "16 trials that share processes"],
)
def test_with_it_they_end_better_than_they_began(
    ray_session: None, tmp_path: Path, rates: list[float], reuse_actors: bool
) -> None:
    """Each trial saw its new rate and its old checkpoint, though Ray was told to keep one."""
    results = sweep(
        tmp_path,
        scheduler(),
        rates,
        reuse_actors=reuse_actors,
        checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
    )
    assert not results.errors
    cuts = {rate: (rate in ONE_CUT) + 2 * (rate in TWO_CUTS) for rate in rates}
    ended_at = sorted(result.config["opt"]["lr"] for result in results)
    assert ended_at == sorted(rate / 2**count for rate, count in cuts.items())
    went_back = [line for line in journal_of(tmp_path) if line.get("event") == "rollback"]
    assert len(went_back) == sum(cuts.values())
    for result in results:
        last = result.metrics
        assert last["lr"] == result.config["opt"]["lr"]
        assert last["training_iteration"] == STEPS
        assert last["eval"]["loss"] < 0.1
        mine = [line["numbers"] for line in went_back if line["trial"] == last["trial_id"]]
        assert last["began_at"] == (mine[-1]["step"] if mine else 0)
        assert [numbers["step"] for numbers in mine] == [1] * len(mine)


def test_beside_a_divergence_stopper_nothing_runs(ray_session: None, tmp_path: Path) -> None:
    """The sweep ends at its start, with the line to type instead."""
    stop = [DivergenceStopper("eval/loss", "min", factor=2.0)]
    with pytest.raises(ValueError, match=r"type RollbackScheduler\(divergence=Divergence\("):
        sweep(tmp_path, scheduler(), [0.3, 1.6], stop=stop)
