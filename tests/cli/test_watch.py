"""`tune-stoppers watch`: the stream, the live view, stopping from there, exit statuses."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stand_ins import folders
from tests.stand_ins.snapshots import listed, snapshot
from tune_stoppers.cli import main

ROOT = Path(__file__).parents[2]
BEGINS = {"time": folders.BEGIN, "trial": "", "event": "begins", "owner": "Test"}
COMMAND = (sys.executable, "-m", "tune_stoppers", "watch")


@pytest.fixture
def running(tmp_path):
    """A sweep of one trial that runs."""
    (row,) = folders.trial(tmp_path, "aaaaa_00000", [2.0])
    snapshot(
        tmp_path,
        listed("aaaaa_00000", "RUNNING", "train_aaaaa_00000_1_x_2026-01-01_00-00-00", last=row),
    )
    folders.journal(tmp_path, BEGINS | {"metric": "loss", "sign": 1})
    return tmp_path


def test_an_ended_sweep_is_told_from_its_beginning_and_ends_the_command(tmp_path, capsys):
    """One event a line, each of them JSON."""
    folders.sweep(tmp_path)
    folders.journal(tmp_path, BEGINS, folders.stop_line("aaaaa_00001", 3))
    assert main(["watch", str(tmp_path), "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["kind"] for event in events] == ["event", "decision", *["status"] * 4, "end"]
    assert events[1]["action"] == "STOP"
    assert events[-1]["trials"] == {"TERMINATED": 3, "ERROR": 1}


def test_without_a_terminal_it_is_sentences(tmp_path, capsys):
    """For a log."""
    folders.sweep(tmp_path)
    folders.journal(tmp_path, BEGINS, folders.stop_line("aaaaa_00001", 3))
    assert main(["watch", str(tmp_path)]) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("+3 s  aaaaa_00001 step 3: STOP, PatienceStopper: 3 of 3 evaluations")
    assert last.endswith("the sweep has ended: 3 TERMINATED, 1 ERROR")


def test_what_cannot_be_watched_is_a_mistake(tmp_path, capsys):
    """One line says what is wrong."""
    assert main(["watch", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: watch: ")
    assert "no Ray Tune experiment" in line


def test_a_sweep_that_is_silent_is_left(running, capsys):
    """Its driver may have been killed."""
    assert main(["watch", str(running), "--json", "--idle", "0"]) == 1
    assert '"RUNNING"' in capsys.readouterr().out


def test_ctrl_c_leaves_and_says_nothing(running):
    """What was told so far is whole."""
    watching = subprocess.Popen(
        [*COMMAND, str(running), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
        # a shell has what it runs in the background ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    lines = [watching.stdout.readline(), watching.stdout.readline()]
    watching.send_signal(signal.SIGINT)
    rest, errors = watching.communicate(timeout=60)
    assert (watching.returncode, errors) == (1, "")
    kinds = [json.loads(line)["kind"] for line in [*lines, *rest.splitlines()]]
    assert kinds == ["event", "status"]


def test_in_a_terminal_a_trial_can_be_stopped(running):
    """Typed below the live view; q leaves, and the terminal is as it was."""
    master, slave = pty.openpty()
    watching = subprocess.Popen(
        [*COMMAND, str(running)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=ROOT,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "30"},
    )
    os.close(slave)
    seen = read_until(master, b"> ")
    assert b"1 trials: 1 RUNNING" in seen
    os.write(master, b"stop 00000 looks wrong\nstop 7\n")
    seen = read_until(master, b"No trial '7'")
    os.write(master, b"q\n")
    assert watching.wait(60) == 1
    os.close(master)
    (request,) = (running / "tune_stoppers" / "requests").glob("*.json")
    assert request.name == "aaaaa_00000.json"
    assert json.loads(request.read_text())["why"] == "looks wrong"


def read_until(master: int, text: bytes) -> bytes:
    """What a terminal shows, until it shows `text`."""
    seen = b""
    while text not in seen:
        seen += os.read(master, 4096)
    return seen
