"""PromotionASHAScheduler in real sweeps."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from ray import tune
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

from tune_stoppers.journal.lines import read_journal
from tune_stoppers.tune.schedulers.promotion_asha import PromotionASHAScheduler

pytestmark = [
    pytest.mark.usefixtures("ray_session"),
    # Ray's own, in the driver: its event loop policy and the loggers it still loads by default
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
]

MAX_T = 9


def train(config: dict[str, Any]) -> None:
    """Falls to its floor; a checkpoint with every report, and it goes on from it."""
    step, checkpoint = 0, tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            step = json.loads(Path(folder, "step.json").read_text())
    while step < 2 * MAX_T:
        step += 1
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "step.json").write_text(json.dumps(step))
            tune.report(
                {"eval": {"loss": config["floor"] + 1 / step}, "steps": step},
                checkpoint=tune.Checkpoint.from_directory(folder),
            )


def fit(
    scheduler: Any, folder: Path, space: dict[str, Any], trainable: Any = train, **options: Any
) -> Any:
    return tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="eval/loss", mode="min", scheduler=scheduler, reuse_actors=True, **options
        ),
        run_config=tune.RunConfig(name="sweep", storage_path=str(folder), verbose=0),
    ).fit()


def statuses(folder: Path) -> set[str]:
    """Of all trials, as Ray wrote them last."""
    newest = max((folder / "sweep").glob("experiment_state-*.json"))
    trials = json.loads(newest.read_text())["trial_data"]
    return {json.loads(trial)["status"] for trial, _ in trials}


def journal(folder: Path) -> list[dict[str, Any]]:
    (path,) = (folder / "sweep" / "tune_stoppers").glob("*/journal-*.jsonl")
    return read_journal(path)


def paths(lines: list[dict[str, Any]]) -> Iterator[list[float]]:
    """The steps that each trial reported, in order."""
    steps = defaultdict(list)
    for line in lines:
        if "action" in line:
            steps[line["trial"]].append(line["step"])
    yield from steps.values()


def test_no_trial_is_left_paused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best of 18 runs to the end, the others wait and are given up; nobody starts over.

    Also on disk, where Ray had written the others down as paused before.
    """
    monkeypatch.setenv("TUNE_GLOBAL_CHECKPOINT_S", "0.1")
    floors = [float((7 * i) % 18) for i in range(18)]
    results = fit(
        PromotionASHAScheduler(MAX_T, 1, pen=6, time_attr="steps"),
        tmp_path,
        {"floor": tune.grid_search(floors)},
    )
    assert not results.errors
    assert statuses(tmp_path) == {"TERMINATED"}
    steps = {r.config["floor"]: r.metrics["steps"] for r in results}
    assert len(steps) == 18
    assert steps[0.0] == MAX_T
    assert sum(steps.values()) < 18 * MAX_T / 2
    lines = journal(tmp_path)
    assert all(seen == list(range(1, len(seen) + 1)) for seen in paths(lines))
    events = [line.get("event") for line in lines]
    assert events.count("resumed") >= 3
    assert events.count("given up") >= 9
    reasons = {r.config["floor"]: r.metrics["stop_reason"] for r in results}
    assert "is no better than" in reasons[17.0]
    assert "horizon" in reasons[0.0]


def test_with_optuna_and_a_limit(tmp_path: Path) -> None:
    """Paused trials count against the limit: the worst make room, and every sample is tried."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = {"floor": tune.uniform(0.0, 10.0)}
    search = ConcurrencyLimiter(OptunaSearch(seed=3), max_concurrent=4)
    results = fit(
        PromotionASHAScheduler(MAX_T, 1, pen=3),
        tmp_path,
        space,
        search_alg=search,
        num_samples=12,
    )
    assert not results.errors
    assert len(results) == 12
    assert statuses(tmp_path) == {"TERMINATED"}
    steps = [r.metrics["training_iteration"] for r in results]
    assert max(steps) == MAX_T
    assert sum(steps) < 12 * MAX_T * 0.7
    assert any("others need its place" in r.metrics["stop_reason"] for r in results)


def test_with_optuna_and_no_limit(tmp_path: Path) -> None:
    """Its trials start by themselves, one is asked for at a time, and promotions take turns."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    results = fit(
        PromotionASHAScheduler(MAX_T, 1, pen=3),
        tmp_path,
        {"floor": tune.uniform(0.0, 10.0)},
        search_alg=OptunaSearch(seed=3),
        num_samples=8,
    )
    assert not results.errors
    assert statuses(tmp_path) == {"TERMINATED"}
    lines = journal(tmp_path)
    added = [i for i, line in enumerate(lines) if line.get("event") == "trial"]
    first = next(i for i, line in enumerate(lines) if "action" in line)
    assert sum(place < first for place in added) <= 3
    assert max(r.metrics["training_iteration"] for r in results) == MAX_T
