"""Runs of MLflow out of its database and its file store, with and without the library."""

import math
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tune_stoppers import Sweep

OBJECTIVE = {"metric": "eval/loss", "mode": "min"}
SCHEMA = """
CREATE TABLE experiments (experiment_id INTEGER, name TEXT, lifecycle_stage TEXT);
CREATE TABLE runs (run_uuid TEXT, name TEXT, experiment_id INTEGER, start_time BIGINT,
    lifecycle_stage TEXT);
CREATE TABLE params (key TEXT, value TEXT, run_uuid TEXT);
CREATE TABLE metrics (key TEXT, value FLOAT, timestamp BIGINT, run_uuid TEXT, step BIGINT,
    is_nan BOOLEAN);
"""  # the columns of MLflow 3.17 that are read
START = 1_000_000  # milliseconds
LARGEST = 1.7976931348623157e308


class Database:
    """A store of MLflow in an SQLite file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = sqlite3.connect(path)
        self.connection.executescript(SCHEMA)

    def experiment(self, number: int, name: str, stage: str = "active") -> None:
        self.connection.execute("INSERT INTO experiments VALUES (?, ?, ?)", (number, name, stage))

    def run(self, run_id: str, name: str, experiment: int, params, values, stage="active") -> None:
        row = (run_id, name, experiment, START, stage)
        self.connection.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?)", row)
        for key, value in params.items():
            self.connection.execute("INSERT INTO params VALUES (?, ?, ?)", (key, value, run_id))
        for key, step, value, time in values:
            kept = (0.0, 1) if value != value else (value, 0)
            row = (key, kept[0], START + time, run_id, step, kept[1])
            self.connection.execute("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?)", row)
        self.connection.commit()

    def done(self) -> Path:
        self.connection.close()
        return self.path


def write_run(folder: Path, name: str, params, values, stage: str = "active") -> Path:
    """A run of the file store."""
    (folder / "metrics").mkdir(parents=True)
    (folder / "meta.yaml").write_text(
        f"run_id: {folder.name}\nrun_name: {name}\nstart_time: {START}\nlifecycle_stage: {stage}\n"
    )
    for part, rows in (
        ("params", params.items()),
        (
            "metrics",
            [(key, f"{START + time} {value} {step}\n") for key, step, value, time in values],
        ),
    ):
        for key, text in rows:
            path = folder / part / key
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(text)
    return folder


VALUES = [
    ("eval/loss", 1, 2.0, 1000),
    ("loss", 1, 3.0, 500),
    ("loss", 2, 2.5, 1500),
    ("eval/loss", 2, math.nan, 2000),
    ("eval/loss", 3, math.inf, 3000),
    ("eval/loss", 1, 1.5, 1200),  # logged again
]
PARAMS = {"lr": "0.001", "optim": "adamw", "r": "8", "bf16": "True", "seed": "None", "v": "1_0"}


def database(tmp_path: Path) -> Path:
    store = Database(tmp_path / "mlflow.db")
    store.experiment(0, "Default")
    store.experiment(1, "lora")
    values = [
        (key, step, math.copysign(LARGEST, value) if math.isinf(value) else value, time)
        for key, step, value, time in VALUES
    ]
    store.run("a" * 32, "first", 1, PARAMS, values)
    store.run("b" * 32, "parent", 1, {}, [("best", 0, 1.0, 0)])
    store.run("c" * 32, "gone", 1, {}, VALUES, stage="deleted")
    store.run("d" * 32, "empty", 0, {}, [])
    return store.done()


def file_store(tmp_path: Path) -> Path:
    lora = tmp_path / "mlruns" / "1"
    write_run(lora / ("a" * 32), "first", PARAMS, VALUES)
    write_run(lora / ("b" * 32), "parent", {}, [("best", 0, 1.0, 0)])
    write_run(lora / ("c" * 32), "gone", {}, VALUES, stage="deleted")
    (lora / "meta.yaml").write_text("experiment_id: '1'\nname: lora\nlifecycle_stage: active\n")
    trash = tmp_path / "mlruns" / ".trash" / "2"
    write_run(trash / ("e" * 32), "trash", {}, VALUES)
    return tmp_path / "mlruns"


@pytest.mark.parametrize(("store", "kind"), [(database, "database"), (file_store, "file store")])
def test_a_store_is_read(store, kind, tmp_path):
    """Names, hyperparameters as they were, steps, seconds, NaN, infinity; a value that was logged
    twice at a step is the newer; deleted runs are left out, and so are those of something else."""
    for path in (store(tmp_path), tmp_path):
        sweep = Sweep.from_mlflow(path, **OBJECTIVE)
        assert sweep.configs == {
            "first": {"lr": 0.001, "optim": "adamw", "r": 8, "bf16": True, "v": "1_0"}
        }
        (curve,) = sweep.curves
        assert curve.iterations.tolist() == [1, 2, 3]
        assert repr(curve.metrics["eval/loss"].tolist()) == "[1.5, nan, inf]"
        assert [row.get("loss") for row in curve.rows()] == [3.0, 2.5, None]
        assert curve.seconds.tolist() == [1.2, 2.0, 3.0]
        assert sweep.reading.startswith(
            f"Experiment 'lora' of a {kind}: time by MLflow's step. "
            "Left out, of 2 runs: 1 without eval/loss."
        )


def test_the_database_goes_before_the_files_beside_it(tmp_path):
    """There lie the artifacts of its runs. A database of something else is none."""
    database(tmp_path)
    file_store(tmp_path)
    assert "of a database" in Sweep.from_mlflow(tmp_path).reading
    (tmp_path / "mlflow.db").unlink()
    sqlite3.connect(tmp_path / "mlflow.db").execute("CREATE TABLE x (y)").connection.close()
    assert "of a file store" in Sweep.from_mlflow(tmp_path).reading


@pytest.mark.parametrize("allowed", ["sqlite:///mlflow.db", "file:./mlruns"])
def test_what_the_library_writes_is_read(allowed, tmp_path):
    """Whatever version of it is installed."""
    pytest.importorskip("mlflow", reason="MLflow is not installed: pip install mlflow-skinny")
    pytest.importorskip("cryptography", reason="MLflow's database needs cryptography")
    code = (
        f"import mlflow\nmlflow.set_tracking_uri({allowed!r})\nmlflow.set_experiment('lora')\n"
        "with mlflow.start_run(run_name='t'):\n"
        "    mlflow.log_params({'lr': 0.5, 'model/width': 8})\n"
        "    for step in range(3):\n"
        "        value = float(['1', 'nan', 'inf'][step])\n"
        "        mlflow.log_metric('eval/loss', value, step=step)\n"
    )
    asked = os.environ | {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=asked, check=True)
    sweep = Sweep.from_mlflow(tmp_path, **OBJECTIVE)
    assert sweep.configs == {"t": {"lr": 0.5, "model/width": 8}}
    assert repr(sweep.curves[0].metrics["eval/loss"].tolist()) == "[1.0, nan, inf]"


def test_of_several_experiments_one_is_to_be_named(tmp_path):
    """All of them are listed."""
    store = Database(tmp_path / "x.db")
    for number, name in enumerate(("lora", "full")):
        store.experiment(number, name)
        store.run(str(number), name, number, {}, VALUES)
    path = store.done()
    with pytest.raises(ValueError, match=r"2 experiments; name one: .* one of 'lora', 'full'"):
        Sweep.from_mlflow(path)
    with pytest.raises(ValueError, match=r"experiment 'lra'\. Did you mean 'lora'\? It has"):
        Sweep.from_mlflow(path, experiment="lra")
    sweep = Sweep.from_mlflow(path, experiment="full")
    assert (sweep.trial_ids, sweep.name) == (["full"], "full")


def test_values_without_a_step_are_numbered(tmp_path):
    """By their times, each metric for itself; and it is said."""
    values = [("loss", 0, 3.0, 10), ("loss", 0, 2.0, 20), ("eval/loss", 0, 9.0, 15)]
    write_run(tmp_path / "1" / "a", "x", {}, values)
    sweep = Sweep.from_mlflow(tmp_path)
    assert sweep.curves[0].iterations.tolist() == [1, 2]
    assert sweep.curves[0].metrics["loss"].tolist() == [3.0, 2.0]
    assert "numbered, as all values were logged without one." in sweep.reading


def test_a_value_without_a_step_stands_where_the_run_had_come_to(tmp_path):
    """Logged at the end, it neither begins the run nor holds up its first step; what was measured
    on the machine, by samples, makes no rows and takes no step from the others."""
    values = [("loss", step, 3.0 - step, 1000 * (step + 1)) for step in range(3)]
    machine = [("system/cpu", sample, 50.0, 100 * sample) for sample in range(60)]
    write_run(tmp_path / "1" / "a", "x", {}, [*values, ("test_acc", 0, 0.9, 9000), *machine])
    (curve,) = Sweep.from_mlflow(tmp_path).curves
    assert [row.get("test_acc") for row in curve.rows()] == [None, None, 0.9]
    assert curve.seconds.tolist() == [1.0, 2.0, 9.0]
    assert sorted(curve.metrics) == ["loss", "test_acc"]

    unstepped = [("loss", 0, 3.0, 10), ("loss", 0, 2.0, 20), ("test_acc", 0, 0.9, 30)]
    write_run(tmp_path / "2" / "a", "x", {}, [*unstepped, *machine])
    (curve,) = Sweep.from_mlflow(tmp_path / "2").curves
    assert [row["loss"] for row in curve.rows()] == [3.0, 2.0]
    assert [row.get("test_acc") for row in curve.rows()] == [None, 0.9]


def test_a_value_that_is_being_written_is_left_out(tmp_path):
    """Of old versions, lines have no step."""
    folder = write_run(tmp_path / "1" / "a", "x", {}, [])
    (folder / "metrics" / "loss").write_text("1 2.5\n2 1.5 1\n3 1")
    assert Sweep.from_mlflow(tmp_path).curves[0].metrics["loss"].tolist() == [2.5, 1.5]


def hostile_line(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "1" / "a", "x", {}, [])
    (folder / "metrics" / "loss").write_bytes(b"1 2 3\n\xff\xfe\0 nonsense\n")


def hostile_yaml(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "1" / "a", "x", {}, VALUES)
    (folder / "meta.yaml").write_text("run_id: !!python/object/apply:os.system ['exit 1']\n")


def huge_yaml(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "1" / "a", "x", {}, VALUES)
    with (folder / "meta.yaml").open("wb") as file:
        file.truncate(2**40)


def no_run(tmp_path: Path) -> None:
    (tmp_path / "meta.yaml").write_text("- a list\n")


def not_mlflow(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "x.db").execute("CREATE TABLE runs (y)").connection.close()


def broken_database(tmp_path: Path) -> None:
    data = bytearray(database(tmp_path).read_bytes())
    data[100:] = b"\xff" * (len(data) - 100)
    (tmp_path / "x.db").write_bytes(data)


def views(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "x.db")
    endless = "WITH RECURSIVE n AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT * FROM n"
    for name in ("experiments", "runs", "params", "metrics"):
        connection.execute(f"CREATE VIEW {name} AS {endless}")
    connection.close()


def text_for_numbers(tmp_path: Path) -> None:
    store = Database(tmp_path / "x.db")
    store.experiment(0, "lora")
    store.run("a", "x", 0, {}, VALUES)
    store.connection.execute("UPDATE metrics SET value = 'much'").connection.commit()
    store.done()


HOSTILE = {
    hostile_line: "line 2 is no value of MLflow",
    hostile_yaml: "is no YAML: could not determine a constructor",
    huge_yaml: "is larger than 1048576 bytes",
    no_run: "holds no run of MLflow that logged a metric",
    not_mlflow: "is no store of MLflow: it has no table 'experiments'",
    broken_database: "cannot be read as an SQLite database",
    views: "it has no table 'experiments'",
    text_for_numbers: "run 'a', metric 'eval/loss': could not convert",
}


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_what_is_no_store_is_one_error(make, tmp_path):
    """That names the file; no code in one is run, and no query of its own."""
    make(tmp_path)
    path = tmp_path / "x.db" if (tmp_path / "x.db").exists() else tmp_path
    with pytest.raises(ValueError, match=HOSTILE[make]):
        Sweep.from_mlflow(path)


def test_nothing_is_written(tmp_path):
    """The database may be one that cannot be written, and is the same afterwards."""
    path = database(tmp_path)
    before = path.read_bytes()
    path.chmod(0o400)
    Sweep.from_mlflow(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["mlflow.db"]
