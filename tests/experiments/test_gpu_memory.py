"""A trial that runs out of memory beside others: the dry run, with the error raised by hand."""

import json
from pathlib import Path

import pytest

from experiments.gpu_memory import GREEDY_AT, REPORTS, TRIALS, main


@pytest.mark.stress
def test_dry_run(tmp_path: Path) -> None:
    """Out of memory twice it ends as failed, keeps its best state, and the others go on."""
    assert main(["--seconds", "0.05", "--out", str(tmp_path)]) == 0
    runs = [json.loads(line) for line in (tmp_path / "gpu_memory.jsonl").read_text().splitlines()]
    assert [run["limited"] for run in runs] == [True, False]
    for run in runs:
        (greedy,) = (trial for trial in run["trials"] if trial["greedy"])
        assert greedy["status"] == "ERROR"
        assert greedy["failures"] == 2
        assert greedy["last_report"] == greedy["best_checkpoint_at"] == GREEDY_AT - 1
        assert "OutOfMemoryError" in greedy["error"]
        modest = [trial for trial in run["trials"] if not trial["greedy"]]
        assert [t["last_report"] for t in modest] == [REPORTS] * (TRIALS - 1)
        assert [t["failures"] for t in modest] == [0] * (TRIALS - 1)
