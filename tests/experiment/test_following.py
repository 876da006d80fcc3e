"""Journals of a running sweep: each line is told once, whole, and in order."""

from pathlib import Path

import pytest
from pyarrow import fs

from tune_stoppers.experiment.following import Follower
from tune_stoppers.journal.lines import as_text, event_line

RUN = "2026-01-01_00-00-00-PatienceStopper-00000000"


def text(step: int, time: float = 0.0) -> str:
    """A decision to continue, as a line."""
    line = {"trial": "a", "step": step, "action": "CONTINUE", "owner": "?"}
    return as_text({"time": time or float(step)} | line)


def write(folder: Path, content: str, first: int = 1, run: str = RUN) -> None:
    """A segment, replaced as a whole."""
    path = folder / "tune_stoppers" / run / f"journal-{first:012d}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def steps(follower: Follower) -> list[float]:
    """The steps of the lines that are new."""
    return [one.line["step"] for one in follower.new()]


@pytest.fixture(params=["local", "remote"])
def follower(request, tmp_path) -> Follower:
    """Of a folder on a local disk, and of one that pyarrow reaches otherwise."""
    if request.param == "local":
        return Follower(fs.LocalFileSystem(), str(tmp_path))
    storage = fs.SubTreeFileSystem(str(tmp_path.parent), fs.LocalFileSystem())
    return Follower(storage, tmp_path.name)


def test_a_line_is_told_once_and_only_when_it_is_whole(follower, tmp_path):
    """Also where the segment is written anew each time, beginning as before."""
    assert follower.new() == []
    write(tmp_path, text(1) + text(2)[:20])
    assert steps(follower) == [1]
    write(tmp_path, text(1) + text(2) + text(3))
    assert steps(follower) == [2, 3]
    assert follower.new() == []
    write(tmp_path, text(4), first=4)
    assert steps(follower) == [4]


def test_a_segment_that_was_begun_again_repeats_nothing(follower, tmp_path):
    """A write that failed half-way is made again as a new segment."""
    write(tmp_path, text(1) + text(2) + text(3)[:9])
    assert steps(follower) == [1, 2]
    write(tmp_path, text(2) + text(3), first=2)
    assert steps(follower) == [3]


def test_several_runs_are_merged_by_time_and_their_owners_are_named(follower, tmp_path):
    """A stopper and a scheduler write side by side."""
    write(tmp_path, text(1) + text(5))
    write(tmp_path, text(3), run=RUN.replace("PatienceStopper", "AutoScheduler"))
    told = follower.new()
    assert [one.line["step"] for one in told] == [1, 3, 5]
    assert {one.run.split("-")[-2] for one in told} == {"PatienceStopper", "AutoScheduler"}


def test_a_sweep_that_begins_again_takes_over(follower, tmp_path):
    """The lines of an earlier birth are another sweep's."""
    write(tmp_path, text(1))
    assert steps(follower) == [1]
    write(tmp_path, text(7), run=RUN.replace("2026-01-01", "2026-01-02"))
    write(tmp_path, text(1) + text(2))
    assert steps(follower) == [7]


def test_what_is_no_line_of_ours_is_left_out(follower, tmp_path, caplog):
    """A torn line in the middle, foreign data, and a file that is no text."""
    write(tmp_path, text(1) + "{torn\n" + '{"time": "x"}\n' + "\x00\n" + text(5))
    assert steps(follower) == [1, 5]
    write(tmp_path, "", run="notes")
    assert follower.new() == []


def test_a_link_out_of_the_folder_is_not_followed(tmp_path, caplog):
    """Its lines are somebody else's."""
    root = tmp_path / "sweep"
    (root / "tune_stoppers" / RUN).mkdir(parents=True)
    (tmp_path / "other").write_text(text(1))
    (root / "tune_stoppers" / RUN / "journal-000000000001.jsonl").symlink_to(tmp_path / "other")
    follower = Follower(fs.LocalFileSystem(), str(root))
    assert follower.new() == follower.new() == []
    assert len(caplog.messages) == 1


def test_events_are_told_too(follower, tmp_path):
    """Whoever begins says what is judged."""
    write(tmp_path, as_text(event_line("PatienceStopper", "", "begins", metric="loss")))
    (one,) = follower.new()
    assert one.line["metric"] == "loss"
