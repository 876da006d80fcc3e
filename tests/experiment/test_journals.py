"""The journals of an experiment, read back."""

import time
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from tests.stand_ins.watched import BEGIN, BIRTH, OLDER, journal_of, watched, write_journal
from tune_stoppers.experiment.journals import merged, runs_of
from tune_stoppers.journal.lines import event_line
from tune_stoppers.journal.recorder import Recorder
from tune_stoppers.journal.spec import from_spec
from tune_stoppers.rules import Patience

LOCAL = pafs.LocalFileSystem()


def test_a_run_says_who_watched_with_which_rule(tmp_path: Path) -> None:
    """Its name is its folder's, its lines are in order, its rule can be built again."""
    (run,) = runs_of(LOCAL, str(watched(tmp_path)))
    assert (run.birth, run.owner, run.uid, run.missing) == (BIRTH, "PatienceStopper", "0123abcd", 0)
    assert from_spec(run.spec) == Patience(2)
    assert run.sign == 1
    assert len(run.lines) == 15


def test_what_is_still_to_be_written_is_read_too(tmp_path: Path) -> None:
    """A sweep that has just ended in this process is explained to its last line."""
    folder = tmp_path / "tune_stoppers" / f"{BIRTH}-PatienceStopper-0123abcd"
    recorder = Recorder(LOCAL, str(folder))
    recorder.write(lambda: event_line("PatienceStopper", "", "begins"))
    recorder.flush()  # its next line waits for more to come
    for number in range(5):
        recorder.write(lambda number=number: event_line("PatienceStopper", f"t{number}", "rewind"))
        (run,) = runs_of(LOCAL, str(tmp_path))
        assert run.lines[-1]["trial"] == f"t{number}"


def test_the_broken_storage_of_another_experiment_is_not_waited_for(tmp_path: Path) -> None:
    """A write that fails is tried again for two seconds: not for each look at a sound one."""
    blocked = tmp_path / "sweep2"
    blocked.touch()  # where its folder should be
    broken = Recorder(LOCAL, str(blocked / "run"))
    broken.write(lambda: event_line("PatienceStopper", "", "begins"))
    assert not broken.flush()
    assert broken.failing
    began = time.monotonic()
    assert runs_of(LOCAL, str(watched(tmp_path / "sweep")))
    assert time.monotonic() - began < 1
    blocked.unlink()
    while broken.failing:  # what it holds is written in the end
        broken.flush()


def test_only_the_newest_birth_counts(tmp_path: Path) -> None:
    """A new experiment under an old name is not explained by the old one's journal."""
    watched(tmp_path)
    write_journal(tmp_path, f"{OLDER}-PatienceStopper-ffffffff", [event_line("x", "", "begins")])
    write_journal(tmp_path, f"{BIRTH}-RuleScheduler-00000001", [event_line("x", "", "begins")])
    assert [run.owner for run in runs_of(LOCAL, str(tmp_path))] == [
        "PatienceStopper",
        "RuleScheduler",
    ]
    assert len(runs_of(LOCAL, str(tmp_path), every=True)) == 3


def test_no_journal_is_no_run(tmp_path: Path) -> None:
    """Nor is a folder of another name, or a file."""
    assert runs_of(LOCAL, str(tmp_path)) == []
    (tmp_path / "tune_stoppers" / "requests").mkdir(parents=True)
    (tmp_path / "tune_stoppers" / f"{BIRTH}-PatienceStopper-0123abcd").write_text("")
    assert runs_of(LOCAL, str(tmp_path)) == []


def test_runs_merge_by_time(tmp_path: Path) -> None:
    """With each line's owner, also where the line does not say."""
    watched(tmp_path)
    line = {"time": BEGIN + 2.5, "trial": "flat", "event": "rewind"}
    write_journal(tmp_path, f"{BIRTH}-RuleScheduler-00000001", [line])
    lines = merged(runs_of(LOCAL, str(tmp_path)))
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    assert [line["owner"] for line in lines if line.get("event") == "rewind"] == ["RuleScheduler"]


def test_overlapping_segments_count_once(tmp_path: Path) -> None:
    """What a failed write left, and what was written again."""
    lines = journal_of(Patience(2), "PatienceStopper")
    name = f"{BIRTH}-PatienceStopper-0123abcd"
    first = write_journal(tmp_path, name, lines[:6])
    first.write_text(first.read_text() + '{"time": 17')
    write_journal(tmp_path, name, lines[4:], start=5)
    (run,) = runs_of(LOCAL, str(tmp_path))
    assert (len(run.lines), run.missing) == (len(lines), 0)


UNSOUND: list[dict[str, Any]] = [
    {"trial": "t", "event": "begins"},
    {"time": 1.0, "trial": 3, "event": "begins"},
    {"time": 1.0, "trial": "t", "action": "JUMP", "step": 1},
    {"time": 1.0, "trial": "t", "action": "STOP", "step": "one"},
    {"time": 1.0, "trial": "t", "action": "STOP", "step": float("nan")},
    {"time": 1.0, "trial": "t", "event": "forgot", "trials": 3},
    {"time": 1.0, "trial": "t", "event": "user", "numbers": 3},
    {"time": 1.0, "trial": "t"},
]


@pytest.mark.parametrize("line", UNSOUND, ids=str)
def test_lines_that_are_not_ours_are_left_out(tmp_path: Path, line: dict[str, Any]) -> None:
    """They are counted as missing, and stop nobody who reads the rest."""
    good = event_line("x", "", "begins")
    write_journal(tmp_path, f"{BIRTH}-PatienceStopper-0123abcd", [good, line, good])
    (run,) = runs_of(LOCAL, str(tmp_path))
    assert (len(run.lines), run.missing) == (2, 1)


def test_a_run_that_cannot_be_read_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """With a note; the others are told."""
    watched(tmp_path)
    large = write_journal(tmp_path, f"{BIRTH}-RuleScheduler-00000001", [])
    large.write_text(" " * 100_000)
    monkeypatch.setattr("tune_stoppers.journal.layout.LARGEST_FILE", 90_000)
    assert [run.owner for run in runs_of(LOCAL, str(tmp_path))] == ["PatienceStopper"]
    assert "it has 100000 bytes is left out" in caplog.text


def test_a_journal_on_any_storage(tmp_path: Path) -> None:
    """A part of a file system, as an object store is."""
    watched(tmp_path / "sweep")
    filesystem = pafs.SubTreeFileSystem(str(tmp_path), LOCAL)
    (run,) = runs_of(filesystem, "sweep")
    assert len(run.lines) == 15
