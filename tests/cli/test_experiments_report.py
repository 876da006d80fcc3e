"""`tune-stoppers report` and `replay --report`."""

import json

import pytest

from tests.report.data.test_from_replay import recorded
from tests.stand_ins.folders import sweep
from tune_stoppers.cli import main

LOSS = ("--metric", "loss", "--mode", "min")


def told(capsys, *arguments: str) -> tuple[int, str, str]:
    status = main(list(arguments))
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture
def folder(tmp_path) -> str:
    return str(sweep(tmp_path / "mine"))


def test_an_experiment_becomes_a_page(capsys, folder, tmp_path):
    """Its path is printed."""
    path = tmp_path / "out.html"
    assert told(capsys, "report", folder, "-o", str(path), *LOSS) == (0, f"Report: {path}\n", "")
    assert path.read_text().startswith("<!doctype html>")


def test_the_facts_for_machines(capsys, folder, tmp_path):
    """With `--json`; the page is written all the same."""
    path = tmp_path / "out.html"
    status, out, _ = told(capsys, "report", folder, "-o", str(path), *LOSS, "--json")
    found = json.loads(out)
    assert (status, path.exists()) == (0, True)
    assert found["best"] == {"trial_id": "aaaaa_00000", "value": 0.5}
    assert (found["spent_s"], found["saved_s"], found["startup_s"]) == (12.0, 7.0, 0.0)
    assert (found["saved_steps"], found["wall_s"], found["idle_s"]) == (7, 7.0, 0.0)
    assert found["importance"] == {"lr": None, "opt": None}  # of too few trials
    assert found["endings"] == {
        "ran to the last step": 1,
        "PatienceStopper": 1,
        "stopped, cause unknown": 1,
        "failed": 1,
    }


def test_a_replay_becomes_a_page_too(capsys, tmp_path):
    """Beside what `replay` prints; rungs are drawn where the scheduler tells them."""
    parquet, path = tmp_path / "sweep.parquet", tmp_path / "out.html"
    recorded().to_parquet(parquet)
    alone = told(capsys, "replay", str(parquet), "--scheduler", "BoundASHAScheduler")
    options = ("--scheduler", "BoundASHAScheduler", "--report", str(path))
    assert told(capsys, "replay", str(parquet), *options) == alone
    text = path.read_text()
    assert "Rule: BoundASHAScheduler." in text
    assert 'class="rung"' in text


MISTAKES = {
    "no folder": (("report", "nowhere", *LOSS), "is not a folder"),
    "empty": (("report", "EMPTY", *LOSS), "no Ray Tune experiment"),
    "nonsense": (("report", "NONSENSE", *LOSS), "is not a folder"),
    "objective": (("report", "SWEEP"), "does not say what it optimises"),
    "metric": (("report", "SWEEP", "--metric", "los", "--mode", "min"), "Did you mean 'loss'"),
    "mode": (("report", "SWEEP", "--metric", "loss", "--mode", "up"), "min or max, got 'up'"),
    "time": (("report", "SWEEP", *LOSS, "--time-attr", "epoch"), "has the time 'epoch'"),
    "output": (("report", "SWEEP", *LOSS, "-o", "NOWHERE/x.html"), "No such file or directory"),
    "page": (("replay", "PARQUET", "--report", "NOWHERE/x.html"), "--report: "),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_status_2(capsys, name, folder, tmp_path, monkeypatch):
    """Nothing is written."""
    arguments, message = MISTAKES[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "NONSENSE").write_text("?")
    recorded().to_parquet(tmp_path / "PARQUET")
    (tmp_path / "mine").rename(tmp_path / "SWEEP")
    status, out, err = told(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not list(tmp_path.glob("**/*.html"))
