"""Which trial a user means, and what is left of a request to stop it."""

import os
import shutil
from pathlib import Path

import pytest

from tests.stand_ins.watched import watched
from tune_stoppers.experiment.folder import ExperimentError
from tune_stoppers.experiment.stop_request import ask_to_stop, meant

IDS = {
    "3a5e0_00002": ("train_3a5e0_00002", "train_3a5e0_00002_2_lr=1_2026-01-01_00-00-00"),
    "3a5e0_00012": ("mine", "my_folder"),
    "b1c2d_00002": ("train_b1c2d_00002",),
}


@pytest.mark.parametrize(
    ("name", "trial"),
    [
        ("3a5e0_00002", "3a5e0_00002"),
        ("00012", "3a5e0_00012"),  # how it alone ends
        ("b1", "b1c2d_00002"),  # how it alone begins
        ("train_3a5e0_00002", "3a5e0_00002"),  # in Ray's tables
        ("other_3a5e0_00012", "3a5e0_00012"),
        ("mine", "3a5e0_00012"),
        ("my_folder", "3a5e0_00012"),
    ],
)
def test_a_trial_is_known_by_what_tables_print(name: str, trial: str) -> None:
    """Ray's, and our own."""
    assert meant(name, IDS) == trial


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("3a5e0", "Several trials begin with '3a5e0': 3a5e0_00002, 3a5e0_00012."),
        ("00002", "Several trials may be '00002': 3a5e0_00002, b1c2d_00002."),
        ("", "No trial ''. There are: 3a5e0_00002, 3a5e0_00012, b1c2d_00002."),
        ("train_3a5e0_0000", "No trial 'train_3a5e0_0000'. Did you mean '3a5e0_00002'?"),
    ],
)
def test_a_name_that_is_not_clear_lists_what_it_may_be(name: str, message: str) -> None:
    """In one error."""
    with pytest.raises(ExperimentError) as caught:
        meant(name, IDS)
    assert str(caught.value) == message


def test_a_request_that_could_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    """Nor does one that was killed half-way, in the end."""
    folder = watched(tmp_path) / "tune_stoppers" / "requests"
    (folder / "running.json" / "in the way").mkdir(parents=True)
    with pytest.raises(OSError, match=r"running\.json"):
        ask_to_stop(tmp_path, "running")
    assert [path.name for path in folder.iterdir()] == ["running.json"]
    shutil.rmtree(folder / "running.json")
    fresh, old = folder / "fresh.part", folder / "old.part"
    fresh.touch()
    old.touch()
    os.utime(old, (0, 0))
    ask_to_stop(tmp_path, "running")
    assert sorted(path.name for path in folder.iterdir()) == ["fresh.part", "running.json"]
