"""What a trial continues from when the checkpoint that Ray knows of it is gone."""

import math
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.fs as pafs
import pytest
from ray.tune import CheckpointConfig
from ray.tune.experiment import Trial

from tune_stoppers.experiment.journals import Run
from tune_stoppers.journal.lines import Line
from tune_stoppers.tune.ray_internals.controller import as_registered, name_of
from tune_stoppers.tune.restore.lost_checkpoints import Mended, journalled, mend_checkpoints

DISK = pafs.LocalFileSystem()
NOW = 1_800_000_000.0  # seconds since the epoch; checkpoint n was written n seconds later
BEST_TWO = CheckpointConfig(
    num_to_keep=2, checkpoint_score_attribute="loss", checkpoint_score_order="min"
)


def name(number: int) -> str:
    return f"checkpoint_{number:06d}"


class Fixture:
    """A trial's folder, and what Ray's snapshot has of it."""

    def __init__(self, folder: Path, config: CheckpointConfig = BEST_TWO) -> None:
        self.folder = folder
        self.trial = Trial("t", stub=True, checkpoint_config=config)
        self.manager = self.trial.run_metadata.checkpoint_manager
        self.storage = SimpleNamespace(
            trial_fs_path=str(folder), storage_filesystem=DISK, current_checkpoint_index=-1
        )
        self.lines: list[Line] = []

    def write(self, number: int, *files: str, late: float = 0.0) -> None:
        path = self.folder / name(number)
        path.mkdir(parents=True, exist_ok=True)
        at = NOW + number + late
        for file in files:
            (path / file).write_text("x")
            os.utime(path / file, (at, at))
        os.utime(path, (at, at))

    def save(self, number: int, loss: float, known: bool = True) -> None:
        """Checkpoint `number` came with report `number` + 1, and Ray's snapshot knows it or not."""
        self.write(number, "weights", "step")
        step = number + 1
        self.lines.append(
            {"time": NOW + number + 0.1, "trial": "t", "step": float(step), "value": loss}
            | {"action": "CONTINUE", "checkpoint": name(number)}
            | {"clocks": {"training_iteration": step, "time_total_s": step * 10.0}}
        )
        if known:
            metrics = {"training_iteration": step, "loss": loss, "time_total_s": step * 10.0}
            result = as_registered(self.storage, name(number), metrics)
            self.manager.register_checkpoint(result)
            self.storage.current_checkpoint_index = number

    def delete(self, *numbers: int) -> None:
        for number in numbers:
            shutil.rmtree(self.folder / name(number))

    def mend(self, journal: bool = True, disk: pafs.FileSystem = DISK) -> Mended | None:
        begins: Line = {"time": NOW, "trial": "", "event": "begins", "metric": "loss"}
        lines = (begins | {"time_attr": "training_iteration"}, *self.lines)
        run = Run("2027-01-15_08-00-00", "BoundASHAScheduler", "0" * 8, lines, 0)
        return mend_checkpoints(
            *("t", self.manager, self.storage, disk, str(self.folder)),
            lambda: journalled([run] if journal else []),
        )

    @property
    def start(self) -> tuple[str, dict[str, Any]] | None:
        """What Ray starts the trial from."""
        result = self.manager.latest_checkpoint_result
        return None if result is None else (name_of(result), result.metrics)

    @property
    def listed(self) -> list[str]:
        return [name_of(result) for result in self.manager.best_checkpoint_results]


@pytest.fixture
def killed(tmp_path: Path) -> Fixture:
    """Ray's snapshot has checkpoints 0 to 3; of 4 and 5 only the journal tells, and 3 is gone."""
    trial = Fixture(tmp_path)
    for number, loss in enumerate([1.0, 0.5, 2.0, 3.0]):
        trial.save(number, loss)
    trial.save(4, 4.0, known=False)
    trial.save(5, 5.0, known=False)
    trial.delete(3, 4)
    return trial


def test_the_newest_that_is_there_with_what_was_reported_with_it(killed: Fixture) -> None:
    assert killed.mend() == Mended(name(3), name(5), newest=5)
    assert killed.start == (
        name(5),
        {"training_iteration": 6, "loss": 5.0, "checkpoint_dir_name": name(5)}
        | {"time_total_s": 60.0},
    )
    assert type(killed.start[1]["training_iteration"]) is int, "as Ray counts, and readers expect"
    assert killed.listed == [name(0), name(1)], "the best are kept as before"
    assert killed.mend() is None, "and then nothing is amiss"


def test_on_remote_storage_too(killed: Fixture) -> None:
    """Where a trial's folder is listed only if its checkpoint is gone."""
    remote = pafs.SubTreeFileSystem("/", DISK)
    assert killed.mend(disk=remote) == Mended(name(3), name(5), newest=5)
    assert killed.mend(disk=remote) is None


@pytest.mark.parametrize("files", [(), ("step",)], ids=["empty", "half of it"])
def test_a_half_written_one_is_not_chosen(killed: Fixture, files: tuple[str, ...]) -> None:
    """It is the newest, nothing was reported with it, and the one before it is still there."""
    killed.write(6, *files)
    mended = killed.mend()
    assert mended is not None
    assert (mended.instead, mended.newest) == (name(5), 6)


@pytest.mark.parametrize("files", [(), ("step",)], ids=["empty", "half of it"])
def test_nor_without_a_journal(killed: Fixture, files: tuple[str, ...]) -> None:
    killed.write(6, *files)
    assert killed.mend(journal=False) == Mended(name(3), name(5), newest=6)


def test_one_written_over_by_a_killed_trial_is_not_what_the_journal_says(killed: Fixture) -> None:
    killed.save(6, 6.0, known=False)
    killed.write(6, "weights", late=30.0)
    mended = killed.mend()
    assert mended is not None
    assert mended.instead == name(5)


def test_without_a_journal_ray_has_deleted_the_one_before_when_it_registered_it(
    killed: Fixture,
) -> None:
    """So it is whole; and the trial saves at every report, so its iteration is known."""
    assert killed.mend(journal=False) == Mended(name(3), name(5), newest=5)
    assert killed.start is not None
    assert killed.start[1]["training_iteration"] == 6
    killed.manager.register_checkpoint(
        as_registered(killed.storage, name(6), {"loss": 9.0, "training_iteration": 7})
    )
    assert killed.listed == [name(0), name(1)], "what came without the metric is not the best"


def test_the_results_tell_where_no_journal_does(killed: Fixture) -> None:
    row = '{"training_iteration": 12, "loss": 7.5, "checkpoint_dir_name": "checkpoint_000005"}\n'
    (killed.folder / "result.json").write_text(row)
    killed.mend(journal=False)
    assert killed.start is not None
    assert killed.start[1]["training_iteration"] == 12


def test_a_trial_that_has_none_left_starts_from_zero(killed: Fixture) -> None:
    killed.delete(0, 1, 5)
    assert killed.mend() == Mended(name(3), None, newest=3)
    assert killed.start is None
    assert killed.listed == []


@pytest.mark.parametrize("score", [math.nan, "nan"])
def test_a_value_that_is_not_finite_is_the_worst(killed: Fixture, score: Any) -> None:
    killed.lines[-1]["value"] = score
    killed.mend()
    assert killed.start is not None
    assert math.isnan(killed.start[1]["loss"])
    assert killed.listed == [name(0), name(1)]


def test_a_better_one_that_ray_did_not_know_is_kept(killed: Fixture) -> None:
    """And one that is gone does not pass for the best, in whose favour Ray deletes others."""
    killed.lines[-1]["value"] = 0.1
    killed.delete(1)
    killed.mend()
    assert killed.listed == [name(0), name(5)]


def test_nothing_is_changed_where_nothing_is_gone(tmp_path: Path) -> None:
    """Nor is the journal read, which may be long."""
    trial = Fixture(tmp_path)
    trial.save(0, 1.0)
    trial.save(1, 2.0)
    before = trial.start
    found = mend_checkpoints(
        *("t", trial.manager, trial.storage, DISK, str(tmp_path)),
        lambda: pytest.fail("the journal was read"),
    )
    assert (found, trial.start) == (None, before)
    assert Fixture(tmp_path / "never saved").mend() is None


def test_one_that_was_being_deleted_counts_as_gone(tmp_path: Path) -> None:
    """Ray deletes file by file, and a kill can come in between."""
    trial = Fixture(tmp_path)
    trial.save(0, 1.0)
    trial.save(1, 2.0)
    trial.save(2, 3.0, known=False)
    (tmp_path / name(1) / "weights").unlink()
    mended = trial.mend()
    assert mended is not None
    assert mended.instead == name(2)
    assert name(1) not in trial.listed


def test_where_nothing_is_ever_deleted_the_snapshot_holds(tmp_path: Path) -> None:
    trial = Fixture(tmp_path, CheckpointConfig())
    trial.save(0, 1.0)
    trial.save(1, 2.0, known=False)
    assert trial.mend() is None
