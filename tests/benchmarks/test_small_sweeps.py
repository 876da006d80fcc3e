"""The benchmark of small sweeps runs from end to end on tiny ones."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import small_sweeps
from benchmarks.pools import Task, draw
from benchmarks.recorded import in_reports
from benchmarks.small_rules import ASHA, ASHA_LATE, BOUND, ORACLE, RULES
from benchmarks.small_sweeps import Cell, run_cell
from benchmarks.small_tables import RANDOM
from tune_stoppers.backtest.comparison import NO_STOPPING
from tune_stoppers.recorded.sweep import Sweep


def a_sweep(name: str, trials: int = 20, length: int = 8) -> Sweep:
    dice = np.random.default_rng(len(name))
    shape = dice.random((trials, 1)) + dice.random((trials, 1)) / np.arange(1, length + 1)
    rows = [
        {"trial_id": f"t{i}", "training_iteration": t, "loss": value, "config/lr": float(i)}
        for i, values in enumerate(shape.tolist())
        for t, value in enumerate(values, start=1)
    ]
    return Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min", name=name)


@pytest.fixture
def curves(tmp_path):
    folder = tmp_path / "curves"
    folder.mkdir()
    for name in ("lora_a", "taskset_a"):
        a_sweep(name).to_parquet(folder / f"{name}.parquet")
    return folder


def test_what_is_measured_of_a_pool() -> None:
    """No stopping does all the work and finds the best; stopping less, and random search more."""
    task = Task("lora", in_reports(a_sweep("lora_a")))
    rules = (NO_STOPPING, ASHA, ORACLE)
    rows = {row["rule"]: row for row in run_cell(task, Cell(0, 8, 2, 1), rules)}
    base, asha, oracle = (rows[rule] for rule in rules)
    assert (base["work"], base["wall"], base["final"], base["killed"]) == (1.0, 1.0, 0.0, 0.0)
    assert base["random"] == 0.0
    assert asha["work"] < 0.9
    assert asha["wall"] < 1.0
    assert asha["killed"] == float(asha["final"] > 0)
    assert oracle["work"] == 1.0
    assert oracle["area"] <= base["area"]
    shares = [row["final"] for rule, row in rows.items() if rule.startswith(RANDOM)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0
    assert len(draw(task, 8, 1)) == 8


def test_a_run_writes_its_tables_and_its_picture(curves, tmp_path, capsys) -> None:
    """Every rule once; other families with 4 workers only, language models with all."""
    out, drawn, kept = (tmp_path / name for name in ("R.md", "work.svg", "runs.csv"))
    given = [str(curves), "--quick", "--families", "lora", "taskset", "--pools", "16"]
    given += ["--workers", "1", "4", "--draws", "1", "--processes", "1"]
    given += ["--out", str(out), "--picture", str(drawn), "--runs", str(kept)]
    assert small_sweeps.main(given) == 0
    text = out.read_text()
    assert "`python -m benchmarks.small_sweeps CURVES_DIR --draws 1`" in text
    for rule in RULES:
        assert f"\n| {rule} |" in text
    assert f"2  {ASHA}" in drawn.read_text()
    runs = pd.read_csv(kept)
    seen = set(runs[["family", "workers"]].itertuples(index=False, name=None))
    assert seen == {("lora", 1), ("lora", 4), ("taskset", 4)}


def test_runs_that_are_kept_are_not_made_again(curves, tmp_path) -> None:
    """Only the rules of --only are; the others come from the file."""
    kept = tmp_path / "runs.csv"
    given = [str(curves), "--families", "lora", "--pools", "8", "--workers", "2", "--draws", "2"]
    given += ["--processes", "1", "--runs", str(kept), "--only", BOUND]
    assert small_sweeps.main(given) == 0
    first = pd.read_csv(kept)
    first.assign(area=0.125).to_csv(kept, index=False)
    assert small_sweeps.main(given) == 0
    again = pd.read_csv(kept)
    assert len(again) == len(first)
    area = again.groupby("rule")["area"].agg(list)
    assert area[ASHA_LATE] == [0.125] * 2
    assert area[BOUND] == first[first["rule"] == BOUND]["area"].tolist()


def test_missing_curves_are_a_users_mistake(tmp_path, capsys) -> None:
    """Said in one line."""
    assert small_sweeps.main([str(tmp_path), "--families", "lora"]) == 2
    assert "holds no lora_*.parquet" in capsys.readouterr().err
