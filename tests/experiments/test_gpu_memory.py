"""A trial that runs out of memory beside others: the dry run, with the error raised by hand."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.gpu_memory import GREEDY_AT, REPORTS, TRIALS, run

ROOT = Path(__file__).parents[2]


def check(found: dict[str, Any]) -> None:
    """Out of memory twice, the greedy trial has failed and keeps its best state; others end."""
    (greedy,) = (trial for trial in found["trials"] if trial["greedy"])
    assert (greedy["status"], greedy["failures"]) == ("ERROR", 2)
    assert greedy["last_report"] == greedy["best_checkpoint_at"] == GREEDY_AT - 1
    assert "OutOfMemoryError" in greedy["error"]
    modest = [trial for trial in found["trials"] if not trial["greedy"]]
    assert [t["last_report"] for t in modest] == [REPORTS] * (TRIALS - 1)
    assert [t["failures"] for t in modest] == [0] * (TRIALS - 1)


def test_a_trial_out_of_memory_fails_alone(ray_session: None, tmp_path: Path) -> None:
    """Under `max_failures=1`, from its newest checkpoint at its second try."""
    check(run(limited=True, seconds=0.0, storage=tmp_path))


@pytest.mark.stress
def test_dry_run(tmp_path: Path) -> None:
    """The whole command, a line for each of its two runs."""
    command = [sys.executable, "-m", "experiments.gpu_memory", "--seconds", "0.05"]
    subprocess.run([*command, "--out", str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    runs = [json.loads(line) for line in (tmp_path / "gpu_memory.jsonl").read_text().splitlines()]
    assert [found["limited"] for found in runs] == [True, False]
    for found in runs:
        check(found)
