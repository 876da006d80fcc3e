"""What a scheduler finds of itself after a restore, if its files were damaged.

Drivers that are killed: tests/faults/test_driver_kills.py.
"""

from pathlib import Path
from typing import Any

import pyarrow.fs
import pytest
from ray import tune

from tune_stoppers import BoundASHAScheduler
from tune_stoppers.journal.recorder import Recorder
from tune_stoppers.tune.schedulers.memory import Memory


def folder_with_states(tmp_path: Path) -> Path:
    recorder = Recorder(pyarrow.fs.LocalFileSystem(), str(tmp_path))
    for number in range(2):
        recorder.write(lambda number=number: {"trial": "t", "event": "x", "n": number})
        recorder.save(lambda number=number: {"n": number})
        assert recorder.flush()
    return tmp_path


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "torn or no state"),
        (lambda text: text.replace('"n":1', '"n":7'), "damaged: its checksum is wrong"),
        (lambda text: text.replace('"format":1', '"format":2'), "of format 2"),
        (lambda text: "[]", "no state of tune_stoppers"),
        (lambda text: "[" * 100_000, "torn or no state"),
        (lambda text: "", "torn or no state"),
    ],
)
def test_damaged_state_gives_way_to_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any, message: str
) -> None:
    """A state that cannot be read is named, and the generation before and the journal are used."""
    folder_with_states(tmp_path)
    newest = max(tmp_path.glob("state-*.json"))
    newest.write_text(damage(newest.read_text()))
    remembered = Recorder(pyarrow.fs.LocalFileSystem(), str(tmp_path)).read()
    assert remembered.state == {"n": 0}
    assert [line["n"] for line in remembered.lines] == [1]
    assert message in caplog.text
    assert str(newest) in caplog.text


def fails(config: dict[str, Any]) -> None:
    """Reports once, and is lost."""
    tune.report({"loss": 1.0})
    raise RuntimeError("a lost node, say")


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")  # the loggers of its default
def test_an_error_while_a_sweep_is_restored_ends_it(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray only logs it, and would go on without the trial, waiting for ever."""

    def cannot(*given: Any) -> None:
        raise OSError("the storage is away")

    tune.Tuner(
        fails,
        tune_config=tune.TuneConfig(metric="loss", mode="min", scheduler=BoundASHAScheduler(9)),
        run_config=tune.RunConfig(name="exp", storage_path=str(tmp_path), verbose=0),
    ).fit()
    monkeypatch.setattr(Memory, "_recall", cannot)
    restored = tune.Tuner.restore(str(tmp_path / "exp"), fails, resume_errored=True)
    with pytest.raises(OSError, match="the storage is away"):
        restored.fit()
