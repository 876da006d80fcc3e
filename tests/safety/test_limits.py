"""Files that are too large, or nested too deep, are refused by name: no reader hangs or swells."""

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from tests.safety.hostile import DEEP
from tests.stand_ins.watched import BIRTH, watched
from tune_stoppers import Sweep, best_states, explain
from tune_stoppers.cli import main
from tune_stoppers.experiment.journals import runs_of
from tune_stoppers.journal.layout import LARGEST_FILE, read_requests, read_state, state_text
from tune_stoppers.journal.lines import DEEPEST, LONGEST_LINE, numbered_lines, parse_lines, parsed
from tune_stoppers.journal.recorder import Recorder
from tune_stoppers.report import experiment_story

GIGABYTE = 10**9
MEGABYTE = 10**6
LOCAL = pafs.LocalFileSystem()
RUN = f"{BIRTH}-PatienceStopper-0123abcd"


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return watched(tmp_path / "sweep")


def peak_of(read: Callable[[], object]) -> int:
    """Bytes that Python takes at most while reading."""
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def read_in_every_way(folder: Path) -> None:
    best_states(folder, "loss", "min")
    explain(folder)
    experiment_story(folder, "loss", "min")
    assert len(Sweep.from_ray(folder)) >= 2
    runs_of(LOCAL, str(folder))


PLACES = {
    "results": "train_falling_1/result.json",
    "parameters": "train_falling_1/params.json",
    "journal": f"tune_stoppers/{RUN}/journal-000000000001.jsonl",
    "another segment": f"tune_stoppers/{RUN}/journal-000000000050.jsonl",
    "error": "train_broken_3/error.txt",
    "state": f"tune_stoppers/{RUN}/state-000001.json",
    "request": "tune_stoppers/requests/flat.json",
    "Ray's": "experiment_state-2026.json",
}
READ = [name for name in PLACES if name not in ("state", "request", "Ray's")]


@pytest.mark.parametrize("place", PLACES)
def test_a_gigabyte_is_not_read(sweep: Path, caplog: pytest.LogCaptureFixture, place: str) -> None:
    """In any file of an experiment: a note names it and the limit, and the rest is read."""
    path = sweep / PLACES[place]
    path.parent.mkdir(exist_ok=True)
    path.touch()
    os.truncate(path, GIGABYTE)  # sparse: takes no room
    assert peak_of(lambda: read_in_every_way(sweep)) < 100 * MEGABYTE
    if place in READ:
        assert str(path) in caplog.text
        assert str(LARGEST_FILE) in caplog.text
        assert str(GIGABYTE) in caplog.text
    path.unlink()


@pytest.mark.parametrize("place", PLACES)
def test_a_million_brackets_are_refused(
    sweep: Path, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    """In any file of an experiment; the rest is read."""
    path = sweep / PLACES[place]
    path.parent.mkdir(exist_ok=True)
    path.write_text(DEEP)
    assert peak_of(lambda: read_in_every_way(sweep)) < 100 * MEGABYTE
    if place in READ and place != "error":
        assert str(path) in caplog.text


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda path: os.truncate(path, GIGABYTE), f"limit of {LARGEST_FILE} bytes"),
        (lambda path: path.write_text(DEEP), "torn or no state"),
        (lambda path: path.write_text(state_text({"lines": 1, "state": nested(200)})), "torn or"),
    ],
    ids=["a gigabyte", "a million brackets", "200 brackets, checksum right"],
)
def test_a_state_beyond_the_limits_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, write: Any, told: str
) -> None:
    """By `ValueError` with its name; a scheduler that meets it reads the one before."""
    path = tmp_path / "state-000002.json"
    path.touch()
    (tmp_path / "state-000001.json").write_text(state_text({"lines": 7, "state": "before"}))
    write(path)

    def read() -> None:
        with pytest.raises(ValueError, match=told) as refused:
            read_state(LOCAL, str(path))
        assert str(path) in str(refused.value)
        assert Recorder(LOCAL, str(tmp_path)).read().state == "before"

    assert peak_of(read) < 100 * MEGABYTE
    assert str(path) in caplog.text


def test_a_request_beyond_the_limits_is_none(tmp_path: Path) -> None:
    """Nor is what is no file: a folder, a pipe that nobody writes into."""
    (tmp_path / "large.json").touch()
    os.truncate(tmp_path / "large.json", GIGABYTE)
    (tmp_path / "deep.json").write_text("[" * 9000)
    (tmp_path / "folder.json").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "sound.json").write_text('{"why": "x"}')
    assert read_requests(LOCAL, str(tmp_path)) == {"sound": "x"}


@pytest.mark.parametrize("name", ["result.json", "params.json", "error.txt"])
def test_a_pipe_is_not_waited_for(sweep: Path, name: str) -> None:
    """A reader that opened it would hang."""
    path = sweep / "train_falling_1" / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    read_in_every_way(sweep)


def nested(depth: int) -> Any:
    found: Any = 1
    for _ in range(depth):
        found = {"a": found}
    return found


def test_depth_is_bounded_where_python_would_still_read_it() -> None:
    """Data that is read can be walked through and written again, from wherever it is used."""
    assert parsed(json.dumps(nested(DEEPEST))) == nested(DEEPEST)
    assert len(parsed(json.dumps([[0]] * 1000))) == 1000
    for depth in (DEEPEST + 1, 500, 10**6):
        with pytest.raises(ValueError, match="nested more than 100 deep"):
            parsed('{"a":' * depth + "1" + "}" * depth)


def test_torn_lines_are_named_up_to_a_few(caplog: pytest.LogCaptureFixture) -> None:
    """A file of nothing but those does not fill the log, nor the memory."""
    text = "x\n" * 100_000 + '{"a": 1}\n'
    assert parse_lines(text, "here") == [{"a": 1}]
    assert len(caplog.records) == 6
    assert "here: 100000 lines are torn" in caplog.text
    ends = "\n" * 10**6
    assert peak_of(lambda: list(numbered_lines(ends, "here"))) < MEGABYTE


def test_a_line_beyond_the_limit_is_torn() -> None:
    """However sound its JSON is."""
    text = '{"a": "' + "x" * LONGEST_LINE + '"}\n{"a": 1}'
    assert list(numbered_lines(text, "here")) == [(2, {"a": 1})]


def test_a_sweep_of_a_gigabyte_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a line, by the command and by the reader."""
    path = tmp_path / "sweep.parquet"
    path.touch()
    os.truncate(path, GIGABYTE)
    with pytest.raises(ValueError, match="magic bytes"):
        Sweep.from_parquet(path)
    assert main(["replay", str(path)]) == 2
    assert "sweep.parquet is no Parquet file" in capsys.readouterr().err
