"""A driver is killed, and the checkpoint that Ray's snapshot names is gone; or that is torn."""

import json
from pathlib import Path

import pytest
import ray

from tests.faults.killing import end, start
from tests.faults.sweep_to_lose import KILLED_AT, NAME, OUTCOME, STARTS, STEPS

MODULE = "tests.faults.sweep_to_lose"
NEVER = "3600"  # seconds between two of Ray's snapshots, but those that it is forced to write
LIFE = 120  # seconds; a trial that is tried for ever comes to no end


def live(storage: Path, ours: str) -> int:
    """One life of the driver; how it ended."""
    address = ray.get_runtime_context().gcs_address
    process = start(storage, [ours], address, NEVER, MODULE)
    try:
        return process.wait(LIFE)
    finally:
        end(process)


@pytest.mark.parametrize(
    ("ours", "torn"),
    [
        ("stopper", ""),
        pytest.param("scheduler", "", marks=pytest.mark.stress),
        pytest.param("nothing", "", marks=pytest.mark.stress),
        pytest.param("stopper", "experiment_state", marks=pytest.mark.stress),
        pytest.param("scheduler", "basic-variant-state", marks=pytest.mark.stress),
    ],
)
def test_the_trial_continues_from_its_newest(
    ray_session: None, tmp_path: Path, ours: str, torn: str
) -> None:
    """And comes to its end, though it may fail as often as it likes.

    From a torn snapshot Ray would begin anew; the copy of it may be from before the trial began.
    """
    assert live(tmp_path, ours) == -9
    known = max((tmp_path / NAME).glob("experiment_state-*.json")).read_text()
    assert b"checkpoint_000003".hex() in known
    assert not list((tmp_path / NAME).glob("*/checkpoint_000003"))
    if torn:
        path = max((tmp_path / NAME).glob(f"{torn}-*"))
        path.write_bytes(path.read_bytes()[:100])
    assert live(tmp_path, ours) == 0, (tmp_path / "driver.log").read_text()[-2000:]
    outcome = json.loads((tmp_path / OUTCOME).read_text())
    assert (outcome["errors"], outcome["step"]) == (0, str(STEPS))
    first, second = map(int, (tmp_path / STARTS).read_text().split())
    assert first == 0
    assert (0 if torn else KILLED_AT - 1) <= second <= KILLED_AT
    (trial_id,) = outcome["trials"]
    assert outcome["best"] == {"trial_id": [trial_id], "checkpoint_step": [2]}
    folders = [path.name for path in (tmp_path / NAME).glob("train_*")]
    assert all(trial_id in name for name in folders), "the sweep did not begin anew"
