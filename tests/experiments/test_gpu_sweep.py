"""The sweep on a shared GPU: its dry run on CPUs."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments import gpu_sweep
from experiments.finetune import Task
from experiments.gpu_sweep import (
    STRATEGIES,
    configurations,
    sweep,
    trainer_rows,
    utilisation,
)
from tests.stand_ins.tiny_folder import counting_data, tiny_folder
from tune_stoppers import Sweep

ROOT = Path(__file__).parents[2]


def test_rows_ask_for_the_answers_only() -> None:
    """Prompt and padding have the label that the loss skips; padding is not attended to."""
    rows = counting_data().evaluation
    row = trainer_rows(rows)[0]
    first, end = int(rows.first[0]), int(rows.end[0])
    assert row["labels"][:first] == [-100] * first
    assert row["labels"][first:end] == row["input_ids"][first:end]
    assert set(row["labels"][end:]) <= {-100}
    assert sum(row["attention_mask"]) == end


def test_configurations_are_the_same_for_every_strategy() -> None:
    """Drawn anew from the same seed, and no two alike."""
    assert configurations(4, seed=3) == configurations(4, seed=3)
    assert len({config["learning_rate"] for config in configurations(24, seed=3)}) == 24


def test_utilisation_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean and the largest of what nvidia-smi says; lines that are no numbers are skipped."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\nprintf "20, 100\\n[N/A], 5\\n40, 300\\n"\nexec sleep 60\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with utilisation() as used:
        time.sleep(0.5)
    assert used == {"utilisation": 30, "memory_mib": 300}


def test_without_nvidia_smi_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing fails."""
    monkeypatch.setattr(gpu_sweep.shutil, "which", lambda name: None)
    with utilisation() as used:
        pass
    assert used == {}


def test_a_strategy_runs_through_ray(ray_session: None, tmp_path: Path) -> None:
    """Every report has its checkpoint, the costs add up, and the best state is measured again."""
    task = Task(
        model=str(tiny_folder(tmp_path / "model")), max_steps=6, eval_every=2, batch_size=4,
        seed=3, full=False, metric="eval_loss", mode="min", eval_on_start=False,
    )  # fmt: skip
    data = counting_data()
    rows = trainer_rows(data.train), trainer_rows(data.evaluation)
    found = sweep("none", configurations(2, seed=3), task, rows, 2, tmp_path / "ray", tmp_path)
    assert (found["trials"], found["starts"], found["errors"], found["reports"]) == (2, 2, 0, 6)
    assert found["restored"] == pytest.approx(found["best"], abs=1e-4)
    assert 0 < found["gpu_s"] == found["trial_s"] / 2 < found["wall_s"]
    assert len(list(tmp_path.rglob("checkpoint_*/trainer_state.json"))) == 6
    assert Sweep.from_parquet(tmp_path / "none.parquet").reports == 6


@pytest.mark.stress
def test_dry_run(tmp_path: Path) -> None:
    """Alone, then every strategy over the same configurations, then steps timed, each a line."""
    counting_data().save(tmp_path / "data.npz")
    given = ["--trials", "4", "--concurrent", "2", "--steps", "8", "--eval-every", "2"]
    given += ["--batch-size", "4", "--sharing", "1", "2", "--seconds", "0.2"]
    given += ["--data", str(tmp_path / "data.npz"), "--out", str(tmp_path / "out")]
    given += ["--model", str(tiny_folder(tmp_path / "model"))]
    command = [sys.executable, "-m", "experiments.gpu_sweep", *given]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    lines = (tmp_path / "out" / "gpu_sweep.jsonl").read_text().splitlines()
    alone, auto, none, asha, *timed = map(json.loads, lines)
    assert [run["strategy"] for run in (alone, auto, none, asha)] == list(STRATEGIES)
    assert (alone["reports"], none["reports"]) == (4, 16)
    assert asha["reports"] < 16
    assert none["best"] <= min(asha["best"], auto["best"])
    for run in (none, asha, auto):
        assert run["errors"] == 0
        assert run["restored"] == pytest.approx(run["best"], abs=1e-4)
        assert 0 < run["gpu_s"] == run["trial_s"] / 2
    assert [t["processes"] for t in timed] == [1, 2]
    assert np.isfinite([t["step_ms"] for t in timed]).all()
