"""A driver is killed, and Ray's snapshot knows neither the rollback nor the best checkpoint."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from tests.faults.killing import end, start
from tests.faults.sweep_to_forget import NAME, SECOND, STARTS
from tune_stoppers import best_state

MODULE = "tests.faults.sweep_to_forget"
NEVER = "3600"  # seconds between two of Ray's snapshots
FULL, HALF, QUARTER = 1.0, 0.5, 0.25  # rates

# what the journal has when the first life comes to a stand, the best checkpoint then, and where
# the second life goes on from: the rates of the steps so far
MOMENTS: dict[str, tuple[str, str, list[float]]] = {
    "decided": ('"action": "PAUSE"', "checkpoint_000004", [FULL] * 5),
    "gone back": ('"event": "config"', "checkpoint_000004", [FULL] * 5),
    "better": ('"value": 0.6', "checkpoint_000007", [FULL] * 5 + [HALF]),
}


def live(storage: Path, moment: str, until: str) -> None:
    """One life of the driver: until the journal has `until`, or to its end."""
    address = ray.get_runtime_context().gcs_address
    process = start(storage, [moment], address, NEVER, MODULE)
    try:
        deadline = time.monotonic() + 120
        while process.poll() is None and (not until or until not in journal(storage)):
            assert time.monotonic() < deadline, (storage / "driver.log").read_text()[-2000:]
            time.sleep(0.05)
        assert bool(until) == (process.poll() is None), (storage / "driver.log").read_text()
    finally:
        end(process)


def journal(storage: Path) -> str:
    files = sorted((storage / NAME / "tune_stoppers").glob("*/journal-*.jsonl"))
    return "".join(file.read_text() for file in files)


def starts(storage: Path) -> list[dict[str, Any]]:
    """The rate of each start of the trial, and the path of the checkpoint that it got."""
    return [json.loads(line) for line in (storage / STARTS).read_text().splitlines()]


def best_of(storage: Path) -> tuple[str, list[float]]:
    """The best checkpoint, though Ray has no result that tells of it: its name and its path."""
    best = best_state(storage / NAME, "loss", "min")
    path = json.loads(Path(best.checkpoint, "path.json").read_text())
    assert best.step == len(path)
    return Path(best.checkpoint).name, path


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("decided", marks=pytest.mark.stress),
        pytest.param("gone back", marks=pytest.mark.stress),
        "better",
    ],
)
def test_it_goes_on_from_its_best_all_the_same(
    ray_session: None, tmp_path: Path, moment: str
) -> None:
    """Not from the newest that Ray knows; and the best is there for the next rollback."""
    until, best, path = MOMENTS[moment]
    live(tmp_path, moment, until)
    known = max((tmp_path / NAME).glob("experiment_state-*.json")).read_text()
    assert b"checkpoint_000001".hex() in known
    assert best.encode().hex() not in known
    assert best_of(tmp_path) == (best, path)
    before = len(starts(tmp_path))
    live(tmp_path, moment, "")
    assert (tmp_path / SECOND).exists()
    after = starts(tmp_path)[before:]
    assert after[0] == {"lr": HALF, "path": path}
    assert after[-1] == {"lr": QUARTER, "path": [FULL] * 5 + [HALF]}
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    assert (outcome["training_iteration"], outcome["loss"]) == (9, 0.3)
    assert best_of(tmp_path)[1] == [FULL] * 5 + [HALF] + [QUARTER] * 2
