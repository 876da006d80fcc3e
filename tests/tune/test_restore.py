"""A driver that is killed and restored: what the scheduler knows, and decides, afterwards."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.fs
import pytest

import tune_stoppers as ts
from tests.tune.sweep_to_kill import SCHEDULERS
from tune_stoppers.journal import read_journal
from tune_stoppers.recorder import Recorder
from tune_stoppers.rules.fold import fold

ROOT = Path(ts.__file__).parents[1]
PATIENCE_SECONDS = 240  # for a machine that does other things as well


def start(*arguments: str) -> "subprocess.Popen[str]":
    """The sweep in its own process group, so that its Ray can be killed with it."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.tune.sweep_to_kill", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def journal_of(storage: Path) -> list[dict[str, Any]]:
    files = sorted((storage / "exp" / "tune_stoppers").glob("*Scheduler-*/journal-*.jsonl"))
    return [line for file in files for line in read_journal(file)]


def judged(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if "action" in line]


def kill_after(process: "subprocess.Popen[str]", storage: Path, reports: int) -> None:
    """SIGKILL the driver and its Ray once the journal has `reports` decisions."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(judged(journal_of(storage))) < reports:
        assert process.poll() is None, "the sweep ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def finish(process: "subprocess.Popen[str]") -> dict[str, Any]:
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    numbered = re.sub(r"\b[0-9a-f]{5}_", "", output)  # trials by number: ids differ between runs
    return json.loads(numbered.strip().splitlines()[-1])


def check_against_fresh(scheduler: str, lines: list[dict[str, Any]]) -> None:
    """A fresh rule fed with the journal's reports, in their order, decides the same."""
    rule = SCHEDULERS[scheduler]().rule
    for line, decision in fold(rule, rule.init(), lines, 1):
        assert (line["action"], line["reason"]) == (decision.action.value, decision.say())


def check_each_once(lines: list[dict[str, Any]]) -> None:
    """No report of a trial was judged twice, but of trials that Tune forgot and made again."""
    seen: set[tuple[str, float]] = set()
    for line in lines:
        gone = line["trials"] if line.get("event") == "forgot" else []
        seen = {(trial, step) for trial, step in seen if trial not in gone}
        if "action" in line:
            assert (line["trial"], line["step"]) not in seen
            seen.add((line["trial"], line["step"]))


KILLS = [pytest.param("bound", 25), pytest.param("rule", 30), pytest.param("promotion", 20)] + [
    pytest.param(name, reports, marks=pytest.mark.stress)
    for name in SCHEDULERS
    for reports in (3, 12, 40, 60, 75)
]


@pytest.mark.parametrize(("scheduler", "reports"), KILLS)
def test_killed_and_restored(tmp_path: Path, scheduler: str, reports: int) -> None:
    """After a SIGKILL the restored run judges on where the killed one ended."""
    kill_after(start(str(tmp_path), scheduler), tmp_path, reports)
    known = len(judged(journal_of(tmp_path)))
    outcome = finish(start(str(tmp_path), scheduler, "--restore"))
    lines = journal_of(tmp_path)
    assert outcome["errors"] == 0
    assert set(outcome["statuses"]) == {"TERMINATED"}
    assert len(outcome["statuses"]) == 10
    assert sum(line.get("event") == "restored" for line in lines) == 1
    assert len(judged(lines)) > known
    check_each_once(lines)
    check_against_fresh(scheduler, lines)


@pytest.mark.stress
def test_single_slot_run_is_that_of_an_uninterrupted_one(tmp_path: Path) -> None:
    """One trial at a time, killed and restored: the same trials end at the same steps."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    kill_after(start(str(killed), "bound", "--single"), killed, 30)
    restored = finish(start(str(killed), "bound", "--restore"))
    assert restored == finish(start(str(whole), "bound", "--single"))


def folder_with_states(tmp_path: Path) -> Path:
    recorder = Recorder(pyarrow.fs.LocalFileSystem(), str(tmp_path))
    for number in range(2):
        recorder.write(lambda number=number: {"trial": "t", "event": "x", "n": number})
        recorder.save(lambda number=number: {"n": number})
        assert recorder.flush()
    return tmp_path


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "torn or no state"),
        (lambda text: text.replace('"n":1', '"n":7'), "damaged: its checksum is wrong"),
        (lambda text: text.replace('"format":1', '"format":2'), "of format 2"),
        (lambda text: "[]", "no state of tune_stoppers"),
        (lambda text: "[" * 100_000, "torn or no state"),
        (lambda text: "", "torn or no state"),
    ],
)
def test_damaged_state_gives_way_to_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any, message: str
) -> None:
    """A state that cannot be read is named, and the generation before and the journal are used."""
    folder_with_states(tmp_path)
    newest = max(tmp_path.glob("state-*.json"))
    newest.write_text(damage(newest.read_text()))
    remembered = Recorder(pyarrow.fs.LocalFileSystem(), str(tmp_path)).read()
    assert remembered.state == {"n": 0}
    assert [line["n"] for line in remembered.lines] == [1]
    assert message in caplog.text
    assert str(newest) in caplog.text
