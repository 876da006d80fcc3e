"""A run's lines and states on its storage: whole, in order, and never in the caller's way."""

import gc
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.fs as pafs
import pytest

from tune_stoppers.journal import recorder as module
from tune_stoppers.journal.layout import (
    read_lines,
    read_requests,
    request_text,
    segments_of,
    state_text,
)
from tune_stoppers.journal.recorder import Recorder

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60.0


class Flaky(pafs.FSSpecHandler):
    """A storage that can be taken down, or held up, between two writes."""

    def __init__(self) -> None:
        super().__init__(fsspec.filesystem("memory", skip_instance_cache=True))
        self.down = False
        self.gate = threading.Event()
        self.gate.set()

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        self.gate.wait(PATIENCE_SECONDS)
        if self.down:
            raise OSError("no space left")
        return super().open_output_stream(path, metadata)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Storage that rewrites is given a second, and a failed write two: not in a test."""
    monkeypatch.setattr(module, "BATCH_SECONDS", {True: 0.01, False: 0.01})
    monkeypatch.setattr(module, "REQUEST_SECONDS", {True: 0.01, False: 0.01})
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.05)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "run")


def local(folder: str) -> Recorder:
    return Recorder(pafs.LocalFileSystem(), folder)


def write(recorder: Recorder, *numbers: int) -> None:
    for number in numbers:
        recorder.write(lambda number=number: {"n": number})  # type: ignore[misc]


def numbers(filesystem: pafs.FileSystem, folder: str) -> list[int]:
    """What the journal holds, in the order of its numbers, each of which is there once."""
    lines = read_lines(filesystem, segments_of(filesystem, folder))
    assert sorted(lines) == list(range(1, len(lines) + 1))
    return [lines[number]["n"] for number in sorted(lines)]


def local_numbers(folder: str) -> list[int]:
    return numbers(pafs.LocalFileSystem(), folder)


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


STORAGES = {
    "local": lambda path: pafs.LocalFileSystem(),
    "below another folder": lambda path: pafs.SubTreeFileSystem("/", pafs.LocalFileSystem()),
    "in memory": lambda path: pafs.PyFileSystem(Flaky()),
    "a mock of an object store": lambda path: pafs._MockFileSystem(),
}


@pytest.mark.parametrize("storage", STORAGES)
def test_a_later_process_finds_state_and_lines(folder: str, storage: str) -> None:
    """The newest state and the lines that it has not taken in, on storage that appends or not."""
    filesystem = STORAGES[storage](folder)
    where = folder.lstrip("/") if storage == "a mock of an object store" else folder
    first = Recorder(filesystem, where)
    assert first.read() == (None, [])
    write(first, 1, 2)
    first.save(lambda: {"sum": 3})
    assert first.flush()
    write(first, 4, 5)
    assert first.flush()
    again = Recorder(filesystem, where)
    state, lines = again.read()
    assert (state, [line["n"] for line in lines]) == ({"sum": 3}, [4, 5])
    write(again, 6)
    again.save(lambda: {"sum": 18})
    assert again.flush()
    assert Recorder(filesystem, where).read() == ({"sum": 18}, [])
    assert numbers(filesystem, where) == [1, 2, 4, 5, 6]


def test_numbers_go_on_whoever_asks(folder: str) -> None:
    """A process that reads all, one that only goes on, and one that just writes."""
    for number, begin in enumerate((Recorder.read, Recorder.go_on, lambda one: None), start=1):
        one = local(folder)
        begin(one)  # type: ignore[operator]
        write(one, number)
        assert one.flush()
    assert local_numbers(folder) == [1, 2, 3]
    assert local(folder).go_on()
    assert not local(folder + "-other").go_on()


@pytest.mark.parametrize("begin", [Recorder.read, Recorder.go_on])
def test_an_earlier_one_in_this_process_writes_first(
    folder: str, monkeypatch: pytest.MonkeyPatch, begin: Callable[[Recorder], object]
) -> None:
    """A sweep that broke is restored at once: its last line was on its way to the storage."""
    monkeypatch.setattr(module, "BATCH_SECONDS", {True: 60.0, False: 60.0})
    first = local(folder)
    write(first, 1)
    until(lambda: Path(folder).exists() and local_numbers(folder) == [1])
    write(first, 2)  # it waits for more to gather
    second = local(folder)
    begin(second)
    write(second, 3)
    assert second.flush()
    assert local_numbers(folder) == [1, 2, 3]


@pytest.mark.parametrize("storage", ["local", "in memory"])
def test_segments_stay_small(folder: str, storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full one is left alone, and the next takes the number of its first line as its name."""
    monkeypatch.setattr(module, "SEGMENT_LINES", {True: 2, False: 2})
    filesystem = STORAGES[storage](folder)
    one = Recorder(filesystem, folder)
    for number in range(1, 6):
        write(one, number)
        assert one.flush()
    assert [segment.start for segment in segments_of(filesystem, folder)] == [1, 3, 5]
    assert numbers(filesystem, folder) == [1, 2, 3, 4, 5]
    _, lines = Recorder(filesystem, folder).read()
    assert [line["n"] for line in lines] == [1, 2, 3, 4, 5]


def test_the_newest_line_is_found_without_reading_what_is_older(
    folder: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Segments are read from the last on, until one has it."""
    monkeypatch.setattr(module, "SEGMENT_LINES", {True: 2, False: 2})
    one = local(folder)
    for number in range(1, 6):
        write(one, number)
        assert one.flush()
    Path(segments_of(one.filesystem, folder)[0].path).write_text("torn")
    assert one.newest(lambda line: line["n"] < 5) == {"n": 4}
    assert not caplog.records
    assert one.newest(lambda line: line["n"] < 3) is None
    assert "line 1 is torn" in caplog.text


def test_a_torn_last_line_costs_only_itself(folder: str, caplog: Any) -> None:
    """It is left out with a note, and the next process goes on after the whole ones."""
    one = local(folder)
    write(one, 1, 2)
    assert one.flush()
    (segment,) = segments_of(one.filesystem, folder)
    with open(segment.path, "ab") as file:
        file.write('{"n": "ü'.encode()[:-1])
    again = local(folder)
    assert len(again.read().lines) == 2
    assert "line 3 is torn and is left out" in caplog.text
    write(again, 3)
    assert again.flush()
    assert local_numbers(folder) == [1, 2, 3]


def test_a_torn_line_in_the_middle_shifts_no_other(folder: str) -> None:
    """A state counts lines: what follows it must not move."""
    one = local(folder)
    write(one, 1, 2)
    one.save(lambda: "two")
    write(one, 3, 4)
    assert one.flush()
    (segment,) = segments_of(one.filesystem, folder)
    rows = Path(segment.path).read_text().splitlines(keepends=True)
    Path(segment.path).write_text("".join(["#" * 9 + "\n", *rows[1:]]))
    state, lines = local(folder).read()
    assert (state, [line["n"] for line in lines]) == ("two", [3, 4])


@pytest.mark.parametrize("down_first", [True, False])
def test_a_storage_that_fails_gets_all_of_it_later(
    folder: str, down_first: bool, caplog: Any
) -> None:
    """In order, each line once, with one warning however often it was tried."""
    handler = Flaky()
    filesystem = pafs.PyFileSystem(handler)
    one = Recorder(filesystem, folder)
    if not down_first:
        write(one, 0)
        assert one.flush()
    handler.down = True
    write(one, 1, 2)
    one.save(lambda: "two")
    assert not one.flush()
    write(one, 3)
    assert not one.flush()
    handler.down = False
    until(one.flush)
    write(one, 4)
    assert one.flush()
    assert numbers(filesystem, folder) == ([1, 2, 3, 4] if down_first else [0, 1, 2, 3, 4])
    assert Recorder(filesystem, folder).read().state == "two"
    assert caplog.text.count("cannot be written (no space left)") == 1


def test_a_full_disk_is_waited_for(tmp_path: Path, caplog: Any) -> None:
    """The kernel's own error, when the file is closed."""
    one = local(str(tmp_path))
    full = tmp_path / "journal-000000000001.jsonl"
    full.symlink_to("/dev/full")
    write(one, 1, 2)
    assert not one.flush()
    full.unlink()
    until(one.flush)
    assert local_numbers(str(tmp_path)) == [1, 2]
    assert "No space left on device" in caplog.text


HALF = """
import resource, sys
import pyarrow.fs as pafs
from tune_stoppers.journal import recorder
recorder.RETRY_SECONDS = 0.05
one = recorder.Recorder(pafs.LocalFileSystem(), sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (105, resource.RLIM_INFINITY))
for batch in range(4):
    for n in range(5):
        one.write(lambda n=5 * batch + n: {"n": n})
    one.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
while not one.flush():
    pass
"""


def test_a_batch_that_was_written_in_half_counts_once(folder: str) -> None:
    """What was cut off is written again in a segment of its own."""
    subprocess.run([sys.executable, "-c", HALF, folder], check=True, cwd=ROOT, timeout=300)
    assert len(segments_of(pafs.LocalFileSystem(), folder)) == 2
    assert local_numbers(folder) == list(range(20))


def test_what_is_held_has_a_bound(
    folder: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """The newest lines survive a storage that fails for long, and the lost ones are counted."""
    monkeypatch.setattr(module, "HELD_LINES", 5)
    handler = Flaky()
    filesystem = pafs.PyFileSystem(handler)
    one = Recorder(filesystem, folder)
    handler.down = True
    write(one, 1, 2, 3)
    assert not one.flush()
    write(one, 4, 5, 6, 7)
    assert not one.flush()
    handler.down = False
    until(one.flush)
    lines = read_lines(filesystem, segments_of(filesystem, folder))
    assert {place: line["n"] for place, line in lines.items()} == {n: n for n in range(3, 8)}
    assert "2 lines could not be held and are lost" in caplog.text


def saved(folder: str, *states: str) -> list[Path]:
    """A journal whose n-th line comes before the n-th state; the states' files, oldest first."""
    one = local(folder)
    for number, state in enumerate(states, start=1):
        write(one, number)
        one.save(lambda state=state: state)  # type: ignore[misc]
        assert one.flush()
    return sorted(Path(folder).glob("state-*"))


def test_two_generations_of_the_state_are_kept(folder: str) -> None:
    """And no half-written one is left behind."""
    files = saved(folder, "a", "b", "c")
    assert [path.name for path in files] == ["state-000002.json", "state-000003.json"]


def flip(path: Path) -> None:
    path.write_text(path.read_text().replace('"c"', '"d"'))


def newer(path: Path) -> None:
    path.write_text(path.read_text().replace('"format":1', '"format":2'))


BROKEN = {
    "torn": (lambda path: path.write_text(path.read_text()[:40]), "is torn"),
    "empty": (lambda path: path.write_text(""), "is torn"),
    "flipped": (flip, "is damaged: its checksum is wrong"),
    "newer": (newer, "is of format 2, this version reads 1"),
    "foreign": (lambda path: path.write_text('{"a": 1}'), "is no state of tune_stoppers"),
    "nested": (lambda path: path.write_text("[" * 100_000), "is torn"),
    "a body of another kind": (lambda path: path.write_text(state_text({"a": 1})), "is no state"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_unreadable_state_is_passed_over(folder: str, name: str, caplog: Any) -> None:
    """The one before is used, and the journal since; one warning says why."""
    harm, why = BROKEN[name]
    harm(saved(folder, "a", "b", "c")[-1])
    state, lines = local(folder).read()
    assert (state, [line["n"] for line in lines]) == ("b", [3])
    assert len(caplog.records) == 1
    assert why in caplog.text
    assert "what was written before it is used" in caplog.text


def test_a_state_too_large_to_be_one_is_not_read(
    folder: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Nor is a segment: whoever reads them gets an error instead of all the memory."""
    newest = saved(folder, "a", "b")[-1]
    monkeypatch.setattr("tune_stoppers.journal.layout.LARGEST_FILE", 200)
    newest.write_text(" " * 201)
    assert local(folder).read().state == "a"
    assert "it has 201 bytes" in caplog.text
    (segment,) = segments_of(pafs.LocalFileSystem(), folder)
    Path(segment.path).write_text(" " * 201)
    with pytest.raises(ValueError, match="is no segment of a journal"):
        local_numbers(folder)


def test_without_any_state_the_journal_has_it_all(folder: str) -> None:
    """It is the truth; states only spare reading it."""
    for path in saved(folder, "a", "b", "c"):
        path.write_text("")
    state, lines = local(folder).read()
    assert (state, [line["n"] for line in lines]) == (None, [1, 2, 3])
    again = local(folder)
    state, lines = again.read(lambda state: state == "a")
    assert len(lines) == 3


def test_a_state_that_the_caller_refuses_is_passed_over(folder: str) -> None:
    """One of another version of the rule, say."""
    saved(folder, "a", "b", "c")
    state, lines = local(folder).read(lambda state: state == "b")
    assert (state, [line["n"] for line in lines]) == ("b", [3])


def test_what_cannot_be_written_keeps_its_place(folder: str, caplog: Any) -> None:
    """A line that a rule of a user's own spoils costs itself; a state likewise."""
    one = local(folder)
    write(one, 1)
    one.write(lambda: {"n": object()})
    one.write(lambda: {"n": "\ud800"})
    one.write(lambda: {}["n"])
    write(one, 5)
    one.save(lambda: object())
    assert one.flush()
    lines = read_lines(one.filesystem, segments_of(one.filesystem, folder))
    assert [lines[n].get("event") for n in sorted(lines)] == [None, *["unwritable"] * 3, None]
    assert lines[5]["n"] == 5
    assert caplog.text.count("a line cannot be written") == 3
    assert "a state cannot be written as JSON" in caplog.text


def test_a_slow_storage_is_not_waited_for(folder: str) -> None:
    """Lines and states are taken while a write hangs, and written when it is over."""
    handler = Flaky()
    filesystem = pafs.PyFileSystem(handler)
    handler.gate.clear()
    one = Recorder(filesystem, folder)
    write(one, *range(1000))
    one.save(lambda: "state")
    assert not one.flush(timeout=0.05)
    handler.gate.set()
    assert one.flush(timeout=PATIENCE_SECONDS)
    assert numbers(filesystem, folder) == list(range(1000))


def test_several_threads_may_write(folder: str) -> None:
    """Every line arrives, once."""
    one = local(folder)
    threads = [
        threading.Thread(target=write, args=(one, *range(500 * i, 500 * i + 500))) for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert one.flush()
    assert sorted(local_numbers(folder)) == list(range(2000))


def test_a_recorder_that_is_dropped_writes_first(folder: str) -> None:
    """Ray drops a scheduler right after the last result; its thread then ends too."""
    one = local(folder)
    write(one, *range(100))
    thread = one._thread
    assert thread is not None
    del one
    gc.collect()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert local_numbers(folder) == list(range(100))


EXIT = """
import sys
import pyarrow.fs as pafs
from tune_stoppers.journal.recorder import Recorder
one = Recorder(pafs.LocalFileSystem(), sys.argv[1])
for n in range(1000):
    one.write(lambda n=n: {"n": n})
one.save(lambda: "state")
"""


def test_nothing_is_lost_when_the_process_ends(folder: str) -> None:
    """Whatever was taken is written before it is gone."""
    subprocess.run([sys.executable, "-c", EXIT, folder], check=True, cwd=ROOT, timeout=300)
    assert local_numbers(folder) == list(range(1000))
    assert local(folder).read() == ("state", [])


FOR_EVER = EXIT.replace("range(1000)", "__import__('itertools').count()")


def test_a_kill_leaves_a_journal_that_can_be_read(folder: str) -> None:
    """Its lines are the first ones that were written, without a gap."""
    process = subprocess.Popen([sys.executable, "-c", FOR_EVER, folder], cwd=ROOT)
    until(lambda: bool(list(Path(folder).glob("journal-*"))))
    process.kill()
    process.wait()
    found = local_numbers(folder)
    assert found == list(range(len(found)))


def test_requests_are_seen_and_met(tmp_path: Path) -> None:
    """A request is there until it is met; then its file goes, and it is not asked for again."""
    requests = tmp_path / "requests"
    one = Recorder(pafs.LocalFileSystem(), str(tmp_path / "run"), str(requests))
    one.watch()
    requests.mkdir()
    (requests / "t1.json").write_text(request_text("too slow"))
    (requests / "t2.json").write_text("nonsense")
    (requests / "t3.json").write_text("[1]")
    (requests / "t4.txt").write_text(request_text("no"))
    (requests / "t5.json").write_text(" " * 10_001)
    until(lambda: bool(one.requested))
    assert one.requested == {"t1": "too slow"}
    one.honoured("t1")
    until(lambda: not (requests / "t1.json").exists())
    assert one.requested == {}
    assert read_requests(one.filesystem, str(requests)) == {}
    (requests / "t1.json").write_text(request_text("again"))
    until(lambda: one.requested == {"t1": "again"})


class Meets(pafs.FSSpecHandler):
    """A storage on which a request is met just while it is being read."""

    def __init__(self) -> None:
        super().__init__(fsspec.filesystem("memory"))
        self.recorder: Recorder | None = None

    def open_input_stream(self, path: str) -> Any:
        if self.recorder is not None:
            self.recorder.honoured("t1")
        return super().open_input_stream(path)


def test_a_request_that_is_met_while_it_is_read_is_not_asked_again(folder: str) -> None:
    """The stopper's thread and the writing one take turns in any order."""
    handler = Meets()
    filesystem = pafs.PyFileSystem(handler)
    filesystem.create_dir(folder, recursive=True)
    with filesystem.open_output_stream(f"{folder}/t1.json") as file:
        file.write(request_text("bored").encode())
    one = handler.recorder = Recorder(filesystem, f"{folder}-run", folder)
    one._look_for_requests()
    assert one.requested == {}
    one._look_for_requests()
    assert read_requests(filesystem, folder) == {}


def test_a_flush_does_not_wait_for_more_lines(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines gather for a while before they are written, unless somebody is waiting."""
    monkeypatch.setattr(module, "BATCH_SECONDS", {True: 3600.0})
    one = local(folder)
    for number in (1, 2):
        write(one, number)
        assert one.flush(PATIENCE_SECONDS)
    assert local_numbers(folder) == [1, 2]


def test_after_so_many_lines_decisions_to_go_on_are_thinned(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What acts keeps its words, and so does what is no decision."""
    monkeypatch.setattr(module, "FULL_LINES", 1)
    line = {"trial": "t", "step": 1, "value": 0.5, "rule": "Patience", "reason": "why"}
    line |= {"numbers": {"best": 1.0}, "owner": "me", "since": 3}
    one = local(folder)
    for action in ("CONTINUE", "CONTINUE", "STOP", "PAUSE"):
        one.write(lambda action=action: line | {"action": action})  # type: ignore[misc]
    one.write(lambda: {"event": "begins", "owner": "me", "rule": "Patience"})
    assert one.flush()
    (segment,) = segments_of(one.filesystem, folder)
    found = [json.loads(row) for row in Path(segment.path).read_text().splitlines()]
    thin = {"trial": "t", "step": 1, "value": 0.5, "since": 3, "action": "CONTINUE"}
    assert found[:2] == [line | {"action": "CONTINUE"}, thin]
    assert found[2:4] == [line | {"action": "STOP"}, line | {"action": "PAUSE"}]
    assert found[4]["rule"] == "Patience"
