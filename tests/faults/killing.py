"""Drivers that are killed with all their processes at chosen moments, and started again."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs

from tests.faults.sweep_to_break import NAMES
from tune_stoppers.experiment.journals import Run, runs_of
from tune_stoppers.journal.lines import Line

ROOT = Path(__file__).parents[2]
LONGEST_SECONDS = 600  # of one life, on a machine that does other things as well
MOST_DECISIONS, MOST_SECONDS = 25, 0.5  # from the start of a life to its end
SNAPSHOTS = ("0.3", "2", "10")  # seconds between two of Ray's


@dataclass(frozen=True)
class Kill:
    """A driver is killed `seconds` after `sweep` has `decisions` more in its journals."""

    sweep: str
    decisions: int
    seconds: float
    snapshots: str = "10"


@dataclass(frozen=True)
class Death:
    """What there was of the sweep that was under way when the driver was killed."""

    sweep: str
    lines: dict[str, list[Line]]  # of its journals, by stopper or scheduler
    terminated: frozenset[str]  # trials, as Ray will remember them
    starts: int  # of trials


def random_kills(seed: int, each: int, names: Sequence[str] = NAMES) -> list[Kill]:
    """`each` kills of every sweep in turn, at random moments."""
    dice = random.Random(seed)
    return [
        Kill(
            name,
            dice.randint(1, MOST_DECISIONS),
            dice.uniform(0, MOST_SECONDS),
            dice.choice(SNAPSHOTS),
        )
        for name in names
        for _ in range(each)
    ]


def break_sweeps(
    storage: Path, kills: Iterable[Kill], names: Sequence[str] = NAMES, address: str = "local"
) -> list[Death]:
    """Run the sweeps `names` to their end through all these kills; those that came in time.

    `address`: of a Ray that outlives its drivers, or "local" for one that is killed with each.
    """
    deaths = []
    for kill in kills:
        died = _live_until(storage, kill, names, address)
        if died is None:
            break
        deaths.append(died)
    else:
        process = start(storage, names, address)
        try:
            status = process.wait(LONGEST_SECONDS)
        finally:
            end(process)
        assert status == 0, f"the driver failed: {(storage / 'driver.log').read_text()[-2000:]}"
    return deaths


def start(
    storage: Path,
    names: Sequence[str],
    address: str,
    snapshots: str = "10",
    module: str = "tests.faults.sweep_to_break",
) -> "subprocess.Popen[bytes]":
    """The sweeps in a process group of their own, a Ray that they start with them."""
    settings = {
        "PYTHONPATH": str(ROOT),
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "TUNE_GLOBAL_CHECKPOINT_S": snapshots,
    }
    with open(storage / "driver.log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", module, address, str(storage), *names],
            cwd=ROOT,
            env=os.environ | settings,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def end(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL the driver and its Ray, whatever is left of them."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # none is left
    finally:
        process.wait()


def runs(storage: Path, name: str) -> list[Run]:
    """What our stoppers and schedulers wrote down in a sweep."""
    return runs_of(pafs.LocalFileSystem(), str(storage / name))


def ended_trials(storage: Path, name: str) -> dict[int, tuple[float, str]]:
    """Step and reason of the end of each trial, by its number: ids differ between runs."""
    ends = json.loads(_outcome(storage, name).read_text()).values()
    return {
        end["case"]["number"]: (end["step"], re.sub(r"\b[0-9a-f]{5}_", "", end["reason"]))
        for end in ends
    }


def _live_until(storage: Path, kill: Kill, names: Sequence[str], address: str) -> Death | None:
    """One life of the driver; None if it ended by itself."""
    process = start(storage, names, address, kill.snapshots)
    try:
        due = _decisions(storage, kill.sweep) + kill.decisions
        deadline = time.monotonic() + LONGEST_SECONDS
        while _decisions(storage, kill.sweep) < due and not _outcome(storage, kill.sweep).exists():
            if process.poll() is not None:
                break
            assert time.monotonic() < deadline, f"{kill}: no progress"
            time.sleep(0.02)
        time.sleep(kill.seconds)
        status = process.poll()
    finally:
        end(process)
    if status == 0 or all(_outcome(storage, name).exists() for name in names):
        return None
    assert status is None, f"the driver failed: {(storage / 'driver.log').read_text()[-2000:]}"
    hit = next(name for name in names if not _outcome(storage, name).exists())
    return _death(storage, hit)


def _death(storage: Path, name: str) -> Death:
    starts = storage / f"{name}.starts"
    return Death(
        name,
        {run.owner: list(run.lines) for run in runs(storage, name)},
        _terminated(storage / name),
        len(starts.read_text().splitlines()) if starts.exists() else 0,
    )


def _terminated(folder: Path) -> frozenset[str]:
    for newest in sorted(folder.glob("experiment_state-*.json"), reverse=True):
        with contextlib.suppress(json.JSONDecodeError):  # Ray died while it wrote this one
            known = json.loads(newest.read_text())["trial_data"]
            trials = (json.loads(trial) for trial, _ in known)
            return frozenset(t["trial_id"] for t in trials if t["status"] == "TERMINATED")
    return frozenset()


def _outcome(storage: Path, name: str) -> Path:
    return storage / f"{name}.json"


def _decisions(storage: Path, name: str) -> int:
    files = (storage / name / "tune_stoppers").glob("*/journal-*.jsonl")
    return sum(path.read_bytes().count(b'"action"') for path in files)
