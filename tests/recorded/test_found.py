"""What a path holds is found out: each kind of record, at the command line too."""

import json
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest
from tensorboardX import SummaryWriter

from tests.recorded.test_mlflow_store import VALUES, database, file_store, write_run
from tests.recorded.test_optuna_study import fill, journal, quiet  # noqa: F401
from tests.recorded.test_wandb_log import REAL
from tune_stoppers.backtest.compare import example_path
from tune_stoppers.cli import main
from tune_stoppers.recorded.found import kind_at

TABLE = "run,step,eval/loss\na,1,1.0\na,2,0.5\nb,1,1.0\nb,2,0.9\n"


def board(folder: Path) -> Path:
    with SummaryWriter(str(folder / "a")) as writer:
        writer.add_scalar("eval/loss", 1.0, 1)
    return folder


def ray(folder: Path) -> Path:
    """Ray's own logger writes event files into each trial's folder."""
    trial = board(folder) / "a"
    (trial / "params.json").write_text("{}")
    row = {"trial_id": "a", "training_iteration": 1, "eval/loss": 1.0}
    (trial / "result.json").write_text(json.dumps(row) + "\n")
    return folder


def table(path: Path) -> Path:
    path.write_text(TABLE)
    return path


def wandb(folder: Path) -> Path:
    """With the event files that it keeps for TensorBoard."""
    shutil.copytree(REAL, folder / "wandb" / "offline-run-1")
    board(folder / "wandb" / "offline-run-1" / "files")
    return folder


def mlflow(folder: Path) -> Path:
    store = file_store(folder)
    board(store / "1" / ("a" * 32) / "artifacts")
    return folder


KINDS = {
    "a Parquet file": lambda here: example_path(),
    "a CSV file": lambda here: table(here / "x.csv"),
    "a CSV file, x.csv": lambda here: table(here / "x.csv").parent,
    "a Ray Tune experiment": ray,
    "a run of W&B": lambda here: REAL / "run-nyqvt90n.wandb",
    "runs of W&B": wandb,
    "runs of TensorBoard": board,
    "a run of TensorBoard": lambda here: next((board(here) / "a").iterdir()),
    "a store of MLflow": mlflow,
    "a store of MLflow, mlflow.db": lambda here: database(here).parent,
}


@pytest.mark.parametrize("what", KINDS)
def test_what_it_is_is_found_out_and_said(what, tmp_path, capsys):
    """In the first line after the name; and it is replayed."""
    path = KINDS[what](tmp_path)
    objective = () if what == "a Parquet file" else ("--metric", "eval/loss", "--mode", "min")
    assert main(["replay", str(path), *objective]) == 0
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("read "))
    assert row.split(maxsplit=1)[1].startswith(f"As {what}.")
    assert main(["replay", str(path), "--json", *objective]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == what


@pytest.mark.parametrize("kind", ["study.db", "study.log"])
def test_a_study_needs_no_metric(kind, tmp_path, capsys):
    """By its file, or the folder that it lies in; also where it is compared."""
    path = tmp_path / kind
    fill(journal(path) if kind.endswith("log") else f"sqlite:///{path}")
    for given, what in ((path, "an Optuna study"), (tmp_path, f"an Optuna study, {kind}")):
        assert main(["replay", str(given), "--stop", "PatienceStopper(patience=1)"]) == 0
        out = capsys.readouterr().out
        assert f"As {what}." in out
        assert "value (min)" in out
    arguments = ["compare", str(path), "--study", "mine", "--orderings", "1", "--processes", "1"]
    assert main([*arguments, "--workers", "2"]) == 0
    assert "mine: read as an Optuna study. Study 'mine'" in capsys.readouterr().out


def several(here: Path) -> Path:
    board(here / "runs")
    wandb(here)
    table(here / "x.csv")
    return here


def two_tables(here: Path) -> Path:
    table(here / "y.csv")
    return table(here / "x.csv").parent


def two_studies(here: Path) -> Path:
    for name in ("a", "b"):
        fill(f"sqlite:///{here / 'x.db'}", name)
    return here / "x.db"


def two_experiments(here: Path) -> Path:
    for name in ("1", "2"):
        write_run(here / name / "run", "x", {}, VALUES)
    return here


def other_database(here: Path) -> Path:
    sqlite3.connect(here / "x.db").execute("CREATE TABLE cats (name)").connection.close()
    return here / "x.db"


def garbage(here: Path) -> Path:
    (here / "x").write_bytes(b"\0\xff" * 1000)
    return here / "x"


def empty(here: Path) -> Path:
    (here / "x").write_bytes(b"")
    return here / "x"


MISTAKES = {
    "several": (several, (), "holds several records, name one of them: runs of W&B ("),
    "two tables": (two_tables, (), "a CSV file, x.csv ("),
    "two studies": (two_studies, (), "has several studies: 'a', 'b'. Name one: study= (on the"),
    "two experiments": (two_experiments, (), "(on the command line --study), one of '1', '2'"),
    "no metric": (board, (), "pass metric= (one of eval/loss) and mode= ('min' or 'max'). On the"),
    "no mode": (board, ("--metric", "eval/loss"), "mode must be 'min' or 'max'"),
    "wrong metric": (board, ("--metric", "eval/los", "--mode", "min"), "did you mean 'eval/loss'"),
    "columns": (board, ("--time", "step"), "are for tables; "),
    "study": (board, ("--study", "x"), "--study is for Optuna and MLflow; "),
    "generation": (board, ("--generation", "1"), "--generation is not for this; "),
    "database": (other_database, (), "of neither Optuna nor MLflow: its tables are cats."),
    "garbage": (garbage, (), "is nothing that can be read here: give a Parquet or CSV file"),
    "an empty file": (empty, (), "is nothing that can be read here"),
    "an empty folder": (lambda here: here, (), "no Ray Tune experiment"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_cannot_be_taken_for_one_thing_is_one_line(name, tmp_path, capsys):
    """That says what is needed."""
    make, options, message = MISTAKES[name]
    assert main(["replay", str(make(tmp_path)), *options]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


def test_a_remote_folder_is_ray_s():
    """The others are read where they lie."""
    assert kind_at("s3://bucket/sweep").what == "a Ray Tune experiment"


def test_optuna_is_named_where_it_is_missing(tmp_path, monkeypatch, capsys):
    """With what to install."""
    fill(f"sqlite:///{tmp_path / 'x.db'}")
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["replay", str(tmp_path / "x.db")]) == 2
    assert "pip install 'tune_stoppers[optuna]'" in capsys.readouterr().err
