"""Drivers that are killed at any moment, and restored: nothing is lost, and nothing done twice."""

from pathlib import Path

import pytest
import ray

from tests.faults.invariants import violations
from tests.faults.killing import Kill, break_sweeps, ended_trials, random_kills
from tests.faults.sweep_to_break import ALL_NAMES, NAMES

SIX = [
    Kill("bound", 24, 0.1),
    Kill("promotion", 20, 0.3, "0.3"),
    Kill("promotion", 30, 0.0, "2"),
    Kill("rollback", 35, 0.2, "2"),
    Kill("rule", 30, 0.2),
    Kill("stoppers", 60, 0.1, "2"),
]


def test_sweeps_whose_driver_is_killed_again_and_again(ray_session: None, tmp_path: Path) -> None:
    """Under every scheduler and under plain stoppers, on a Ray that lives on."""
    address = ray.get_runtime_context().gcs_address
    deaths = break_sweeps(tmp_path, SIX, address=address)
    assert len(deaths) == len(SIX)
    assert [text for name in NAMES for text in violations(tmp_path, name, deaths)] == []


@pytest.mark.stress
@pytest.mark.parametrize("name", ALL_NAMES)
@pytest.mark.parametrize("seed", range(4))
def test_a_hundred_kills(tmp_path: Path, name: str, seed: int) -> None:
    """At random moments, each with the driver's own Ray: five of every sweep."""
    deaths = break_sweeps(tmp_path, random_kills(seed, 5, [name]), [name])
    assert deaths
    assert violations(tmp_path, name, deaths) == []


@pytest.mark.stress
def test_one_trial_at_a_time_ends_as_if_nobody_had_killed_it(tmp_path: Path) -> None:
    """The same trials end at the same steps, for the same reasons."""
    ends = []
    for place, kills in (("killed", [Kill("single", 30, 0.0)]), ("whole", [])):
        storage = tmp_path / place
        storage.mkdir()
        assert len(break_sweeps(storage, kills, ["single"])) == len(kills)
        ends.append(ended_trials(storage, "single"))
    assert ends[0] == ends[1]
