"""The sweep as a user runs it: bad input, and a small real run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from experiments import finetune_sweep
from experiments.finetune_sweep import main

ROOT = Path(finetune_sweep.__file__).parents[1]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said about the arguments; they must be refused with status 2."""
    assert main(list(arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", "0"], "--trials must be at least 1"),
        (["--max-steps", "4", "--eval-every", "8"], "no trial would ever be evaluated"),
        (["--metric", "eval_los"], "Did you mean 'eval_loss'? They report: best_eval_loss, epoch"),
        (["--stop", "Patience"], "Unknown name 'Patience'. Did you mean 'PatienceStopper'?"),
        (["--stop", "PatienceStopper(patience=0)"], "patience must be >= 1, got 0"),
        (["--model", "/absent/model"], "/absent/model"),
        (["--resume", "/absent/experiment"], "is no experiment of this sweep"),
    ],
)
def test_bad_arguments_are_one_line(
    capsys: pytest.CaptureFixture[str], storage: Path, arguments: list[str], message: str
) -> None:
    """A mistake is one line that says what to do, status 2, and nothing is written."""
    assert message in refused(capsys, "--storage", str(storage), *arguments)
    assert not storage.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no pairs"),
        ('{"prompt": "a", "completion": "b"}\nnonsense\n', ":2"),
        ('{"prompt": "a"}\n', ":1"),
    ],
)
def test_bad_data_names_the_line(
    capsys: pytest.CaptureFixture[str], storage: Path, content: str, message: str
) -> None:
    """Empty and malformed data are refused, with the file and the line."""
    data = storage.parent / "data.jsonl"
    data.write_text(content)
    error = refused(capsys, "--storage", str(storage), "--data", str(data))
    assert "data.jsonl" in error
    assert message in error
    assert not storage.exists()


def test_unwritable_storage_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A storage path that cannot be written says so before the first trial."""
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(capsys, "--storage", str(tmp_path / "file" / "results"))


def test_full_disk_is_refused(
    capsys: pytest.CaptureFixture[str], storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too little room for the checkpoints to be kept is told with count and size."""

    class Usage:
        free = 1_000_000

    monkeypatch.setattr(finetune_sweep.shutil, "disk_usage", lambda path: Usage)
    error = refused(capsys, "--storage", str(storage), "--trials", "3")
    assert "1 MB free, less than 3 trials x 2 checkpoints x" in error
    assert list(storage.iterdir()) == []


def run(*arguments: str) -> tuple[int, str]:
    """The sweep in a process of its own: exit status and output."""
    command = [sys.executable, "-m", "experiments.finetune_sweep", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, Path]:
    """Two trials of four steps of the real model: status, output, experiment folder."""
    storage = tmp_path_factory.mktemp("sweep")
    arguments = ["--trials", "2", "--max-steps", "4", "--eval-every", "2", "--eval-examples", "8"]
    status, output = run(*arguments, "--storage", str(storage))
    (folder,) = storage.iterdir()
    return status, output, folder


def test_small_real_run(small_run: tuple[int, str, Path]) -> None:
    """Two trials of the real model run to their end, and the best state reproduces its loss."""
    status, output, folder = small_run
    assert status == 0
    assert "they agree" in output
    assert output.count(" ends after ") == 2
    trials = pd.read_parquet(folder / "tune_stoppers" / "trials.parquet")
    assert trials["steps"].tolist() == [4, 4]
    assert trials["reports"].tolist() == [3, 3]  # at steps 0, 2 and 4


def test_results_folder_holds_what_was_printed(small_run: tuple[int, str, Path]) -> None:
    """CSV, Parquet and JSON lines carry the table, the reports and the decisions."""
    folder = small_run[2] / "tune_stoppers"
    summary = json.loads((folder / "summary.json").read_text())
    assert abs(summary["best"]["recorded"] - summary["best"]["restored"]) <= 1e-3
    assert summary["best"]["heldout_pairs"] >= 128
    assert len(pd.read_csv(folder / "trials.csv")) == 2
    reports = [json.loads(line) for line in (folder / "reports.jsonl").read_text().splitlines()]
    assert len(reports) == 6
    needed: set[str] = {"eval_loss", "train_loss", "grad_norm", "lr", "step"}
    assert all(needed <= set(report) for report in reports)
    journal: list[dict[str, Any]] = [
        json.loads(line)
        for path in folder.glob("*-*/journal-*.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert {line["owner"] for line in journal} == {"AutoScheduler", "DivergenceStopper"}


@pytest.mark.stress
def test_finished_sweep_can_be_resumed(small_run: tuple[int, str, Path]) -> None:
    """`--resume` goes through Tuner.restore with the sweep's own settings and measures again."""
    status, output = run("--resume", str(small_run[2]))
    assert status == 0
    assert "they agree" in output
