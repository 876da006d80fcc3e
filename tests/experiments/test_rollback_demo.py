"""The rollback demo: what it says of two runs, its plot, and the real thing."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from experiments.rollback_demo import (
    ALONE,
    RESCUED,
    Point,
    _branches,
    plot,
    summary,
    table_of,
)

ROOT = Path(__file__).parents[2]

RUNS = [
    (ALONE, 0, [(0, 4.0), (3, 3.0), (6, 9.0), (9, 20.0)]),
    (RESCUED, 0, [(0, 4.0), (3, 3.0), (6, 9.0)]),
    (RESCUED, 1, [(3, 3.0), (6, 2.9), (9, 5.0)]),
    (RESCUED, 2, [(9, 2.5)]),
]
POINTS = [
    Point(run, line, step, loss, 0.1 / 2**line if step else None)
    for run, line, evaluations in RUNS
    for step, loss in evaluations
]


def test_the_summary_counts_steps_that_were_given_up() -> None:
    """Two rollbacks, to steps 3 and 6: 6 + 6 + 3 steps."""
    assert summary(table_of(POINTS)).splitlines() == [
        "left alone: best eval loss 3.000, last 20.000, 0 rollbacks, 9 steps",
        "rolled back: best eval loss 2.500, last 2.500, 2 rollbacks, 15 steps",
    ]


def test_branches_leave_the_way_where_the_trial_went_back_to() -> None:
    """Also where that evaluation was repeated; none of them is on the way twice."""
    table = table_of(POINTS)
    given_up, way = _branches(table[table["run"] == RESCUED])
    assert [branch["step"].tolist() for branch in given_up] == [[3, 6], [6, 9]]
    assert [branch["eval_loss"].tolist() for branch in given_up] == [[3.0, 9.0], [2.9, 5.0]]
    assert way["eval_loss"].tolist() == [4.0, 3.0, 2.9, 2.5]


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_plot_is_an_image(tmp_path: Path, suffix: str) -> None:
    """Of either kind."""
    target = tmp_path / f"plot{suffix}"
    plot(table_of(POINTS), target)
    content = target.read_bytes()
    assert content.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    assert len(content) > 10_000


@pytest.mark.stress
def test_a_real_fine_tune_is_rescued(tmp_path: Path) -> None:
    """It ends below where it began; left alone it ends far above."""
    target = tmp_path / "demo.png"
    command = [sys.executable, "-m", "experiments.rollback_demo", "--out", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    last = (
        pd.read_csv(target.with_suffix(".csv")).groupby("run")["eval_loss"].agg(["first", "last"])
    )
    assert last.loc[RESCUED, "last"] < last.loc[RESCUED, "first"] < last.loc[ALONE, "last"]
    assert target.exists()
