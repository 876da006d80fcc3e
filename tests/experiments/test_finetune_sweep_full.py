"""The sweep of `make sweep`, as it stands: long, so it runs under `make stress`."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.stress
def test_the_default_sweep_stops_losers_and_restores_the_winner(tmp_path: Path) -> None:
    """Eight trials: some are stopped early for a stated reason, and the winner reproduces."""
    command = [sys.executable, "-m", "experiments.finetune_sweep", "--storage", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (folder,) = tmp_path.iterdir()
    trials = pd.read_parquet(folder / "tune_stoppers" / "trials.parquet")
    assert len(trials) == 8
    early = trials[trials["steps"] < 20]
    assert len(early) >= 1
    assert early["reason"].str.match(r"\w+(?:Stopper|Scheduler): \w").all()
    summary = json.loads((folder / "tune_stoppers" / "summary.json").read_text())
    assert summary["best"]["agree"]
    assert summary["compute"]["saved_share"] > 0
    best = trials.iloc[0]
    assert best["steps"] == 20, "the winner was not stopped"
