"""Storage that is full, read-only, slow or damaged: it is said, and what was acknowledged stays.

What `tests/journal/test_recorder.py` and `tests/tune/schedulers/test_memory.py` try with one file
at a time is not tried again here: these are real disks, and damage at any place.
"""

import contextlib
import logging
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest
from ray import tune

from tests.faults.bad_storage import BadStorage, Mended
from tune_stoppers import BoundASHAScheduler, explain
from tune_stoppers.core import Action, Decision, Report
from tune_stoppers.experiment.journals import runs_of
from tune_stoppers.journal import recorder as module
from tune_stoppers.journal.fold import fold
from tune_stoppers.journal.layout import read_lines, segments_of
from tune_stoppers.journal.lines import Journal, line_of, read_journal
from tune_stoppers.journal.recorder import Recorder
from tune_stoppers.report.data.explain import verify
from tune_stoppers.rules.sweep.bound_asha import BoundASHA

ROOT = Path(__file__).parents[2]
LINES = 40
GO_ON = Decision(Action.CONTINUE, "a reason " * 20, "Patience")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed write is given two seconds: not in a test."""
    monkeypatch.setattr(module, "BATCH_SECONDS", {True: 0.01, False: 0.01})
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.05)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place))
    if not mounted:
        pytest.skip("only root may mount a disk")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


def recorder(folder: Path) -> Recorder:
    return Recorder(pafs.LocalFileSystem(), str(folder))


def write(one: Recorder, *numbers: int) -> None:
    for number in numbers:
        one.write(lambda number=number: {"n": number})


def written(folder: Path) -> list[int]:
    local = pafs.LocalFileSystem()
    found = read_lines(local, segments_of(local, str(folder)))
    assert sorted(found) == list(range(1, len(found) + 1))
    return [found[number]["n"] for number in sorted(found)]


def until_written(one: Recorder) -> None:
    for _ in range(1000):
        if one.flush():
            return
    raise AssertionError("it is not written, though the storage is back")


def fill(disk: Path) -> Path:
    """Somebody else's file takes the rest of the disk."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return ballast


def test_a_disk_that_fills_up_loses_nothing(disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What was written stays, what comes is held, the older state is used, one warning is given."""
    one = recorder(disk / "run")
    write(one, *range(LINES))
    one.save(lambda: "before")
    assert one.flush()
    ballast = fill(disk)
    write(one, *range(LINES, 1000))
    one.save(lambda: "x" * 20_000)
    assert not one.flush()
    state, lines = recorder(disk / "run").read()
    assert state == "before"
    assert [line["n"] for line in lines] == list(range(LINES, LINES + len(lines)))
    ballast.unlink()
    until_written(one)
    assert written(disk / "run") == list(range(1000))
    assert recorder(disk / "run").read().state == "x" * 20_000
    assert caplog.text.count("cannot be written") == 1
    assert "No space left on device" in caplog.text


def test_a_disk_that_turns_read_only_loses_nothing(
    disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a disk does on which an error was found, until somebody has mended it."""
    one = recorder(disk / "run")
    write(one, *range(LINES))
    assert one.flush()
    assert mount("-o", "remount,ro", str(disk))
    write(one, *range(LINES, 2 * LINES))
    one.save(lambda: "state")
    assert not one.flush()
    assert written(disk / "run") == list(range(LINES))
    assert mount("-o", "remount,rw", str(disk))
    until_written(one)
    assert written(disk / "run") == list(range(2 * LINES))
    assert caplog.text.count("Read-only file system") == 1


def test_a_process_that_ends_on_a_full_disk_says_what_it_loses(disk: Path) -> None:
    """Nobody finds out later that the last lines are missing."""
    fill(disk)
    script = (
        "import sys, pyarrow.fs as pafs\n"
        "from tune_stoppers.journal.recorder import Recorder\n"
        "one = Recorder(pafs.LocalFileSystem(), sys.argv[1])\n"
        "one.write(lambda: {'n': 1})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(disk / "run")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{disk}/run: the newest lines are not written" in done.stderr


def test_a_stoppers_own_journal_ends_no_sweep(disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where the disk under `journal=...` fills up, lines are held until there is room again."""
    journal = Journal(disk / "decisions.jsonl")
    for step in range(LINES):
        journal.write(line_of("o", "t", step, 0.5, GO_ON))
    ballast = fill(disk)
    for step in range(LINES, 2 * LINES):
        journal.write(line_of("o", "t", step, 0.5, GO_ON))
    assert len(read_journal(journal.path)) < 2 * LINES
    ballast.unlink()
    journal.close()
    caplog.set_level(logging.ERROR)  # a line that was cut off is told of
    assert [line["step"] for line in read_journal(journal.path)] == list(range(2 * LINES))
    assert caplog.text.count("No space left on device") == 1


@pytest.mark.stress
@pytest.mark.usefixtures("ray_session")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")
def test_a_sweep_on_bad_storage_is_told_in_full(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each write takes 200 ms, and ours fail at first: it ends, and no decision is missing."""
    sick = tmp_path / "sick"
    sick.touch()
    filesystem = pafs.PyFileSystem(BadStorage(str(sick)))
    results = tune.Tuner(
        descend,
        param_space={"floor": tune.grid_search([0.5, 0.1, 0.9, 0.3, 0.7, 0.2])},
        tune_config=tune.TuneConfig(
            metric="loss", mode="min", scheduler=BoundASHAScheduler(18, 2), reuse_actors=True
        ),
        run_config=tune.RunConfig(
            name="exp",
            storage_path=str(tmp_path),
            storage_filesystem=filesystem,
            callbacks=[Mended(str(sick))],
            verbose=0,
        ),
    ).fit()
    assert not results.num_errors
    (run,) = runs_of(filesystem, str(tmp_path / "exp"))
    assert not run.missing
    for result in results:
        steps = [
            line["step"]
            for line in run.lines
            if "action" in line and line["trial"] == result.metrics["trial_id"]
        ]
        assert steps == list(range(1, result.metrics["training_iteration"] + 1))
    verified = verify(run)
    assert verified.rerun is not None
    assert not verified.failed
    assert set(explain(tmp_path / "exp")["cause"]) <= {run.owner, "ran to the last step"}
    assert caplog.text.count("cannot be written (the quota is used up)") == 1


def descend(config: dict[str, Any]) -> None:
    """18 steps, with a checkpoint at every ninth."""
    for step in range(1, 19):
        kept = None
        with tempfile.TemporaryDirectory() as folder:
            if step % 9 == 0:
                Path(folder, "step").write_text(str(step))
                kept = tune.Checkpoint.from_directory(folder)
            tune.report({"loss": config["floor"] + 1 / step}, checkpoint=kept)


# -- damage at any place -----------------------------------------------------------------------


RULE = BoundASHA(max_t=9, grace_period=1)


def sweep_on(folder: Path) -> Any:
    """A journal and two states of a sweep, and the record of its rule."""
    one, record = recorder(folder), RULE.init()
    for step in range(1, 6):
        for trial in range(4):
            report = Report(f"t{trial}", step, trial + 1 / step)
            decision = RULE.update(record, report)
            line = line_of("o", report.trial_id, step, report.loss, decision)
            one.write(lambda line=line: line)
        if step in (2, 4):
            dumped = RULE.dump(record)
            one.save(lambda dumped=dumped: dumped)
            assert one.flush()
    assert one.flush()
    return RULE.dump(record)


def recalled(folder: Path) -> Any:
    """The record of the rule, as a restored sweep has it."""
    state, lines = recorder(folder).read()
    record = RULE.init() if state is None else RULE.load(state)
    for _ in fold(RULE, record, lines, 1):
        pass
    return RULE.dump(record)


def harmed(text: bytes, dice: random.Random) -> bytes:
    """One bit flipped, the end cut off, or zeros where the disk had promised room."""
    place = dice.randrange(len(text))
    match dice.choice(["bit", "end", "zeros"]):
        case "bit":
            flipped = text[place] ^ (1 << dice.randrange(8))
            return text[:place] + bytes([flipped]) + text[place + 1 :]
        case "end":
            return text[:place]
    return text[:place] + bytes(len(text) - place)


@pytest.mark.parametrize("seed", range(40))
def test_a_state_damaged_anywhere_changes_no_decision(tmp_path: Path, seed: int) -> None:
    """The newest generation, or both: what is restored is what was recorded."""
    dice = random.Random(seed)
    expected = sweep_on(tmp_path)
    states = sorted(tmp_path.glob("state-*"))
    for state in states[-dice.randint(1, 2) :]:
        state.write_bytes(harmed(state.read_bytes(), dice))
    assert recalled(tmp_path) == expected


@pytest.mark.parametrize("seed", range(40))
def test_a_journal_damaged_anywhere_costs_what_was_hit(tmp_path: Path, seed: int) -> None:
    """It is read, without an error, and every line before and after keeps its number and words."""
    dice = random.Random(seed)
    sweep_on(tmp_path)
    local = pafs.LocalFileSystem()
    (segment,) = segments_of(local, str(tmp_path))
    before = read_lines(local, [segment])
    text = Path(segment.path).read_bytes()
    place = dice.randrange(len(text))
    flipped = bytes([text[place] ^ (1 << dice.randrange(8))])
    Path(segment.path).write_bytes(text[:place] + flipped + text[place + 1 :])
    after = read_lines(local, [segment])
    hit = text[:place].count(b"\n") + 1
    if b"\n" in (flipped, text[place : place + 1]):  # two lines have become one, or one two
        assert all(after[number] == before[number] for number in range(1, hit))
        return
    assert {n: line for n, line in after.items() if n != hit} == {
        n: line for n, line in before.items() if n != hit
    }
