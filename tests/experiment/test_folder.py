"""Reading experiment folders: what the files alone tell, on any filesystem."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from tune_stoppers import best_state, best_states
from tune_stoppers.experiment.folder import Experiment, ExperimentError
from tune_stoppers.report.terminal.best import best_of

FOLDER = "train_9f18b_00000_0_lr=0.1000_2026-01-02_03-04-05"


def row(step: int, loss: float = 1.0, **more: Any) -> dict[str, Any]:
    """A report as Ray writes it, ten seconds after the one before."""
    date = f"2026-01-02_03-{step:02d}-00"
    return {
        "trial_id": "9f18b_00000",
        "training_iteration": step,
        "loss": loss,
        "date": date,
        "timestamp": 1000 + step,
        "done": False,
        **more,
    }


def write(root: Path, rows: list[dict[str, Any]], folder: str = FOLDER, **files: str) -> Path:
    """One trial's folder; `files` go into it by name."""
    trial = root / folder
    trial.mkdir(parents=True)
    (trial / "params.json").write_text('{"lr": 0.1}')
    (trial / "result.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in files.items():
        (trial / name.replace("_", ".")).write_text(text)
    return trial


def write_journal(root: Path, lines: list[dict[str, Any]]) -> None:
    """One of ours about the trial, as a run of its own."""
    ours = root / "tune_stoppers" / "2026-PatienceStopper-0123abcd"
    ours.mkdir(parents=True)
    text = "".join(
        json.dumps({"time": 0.0, "trial": "9f18b_00000", **line}) + "\n" for line in lines
    )
    (ours / "journal-000000000001.jsonl").write_text(text)


def by_trainer(row: dict[str, Any], progress: float) -> dict[str, Any]:
    """With what `TuneCallback` reports beside the metrics."""
    return row | {
        "step": round(8 * progress),
        "epoch": progress,
        "progress": progress,
        "best_loss": 1.0,
    }


def failure(date: str) -> str:
    return f"Failure # 1 (occurred at {date})\nRuntimeError: on purpose\n"


@pytest.mark.parametrize(
    ("rows", "files", "status"),
    [
        ([row(1), row(2, done=True)], {}, "TERMINATED"),
        ([row(1, stop_reason="PatienceStopper: 3 of 3")], {}, "TERMINATED"),
        ([by_trainer(row(1), 0.5), by_trainer(row(2), 1.0)], {}, "TERMINATED"),
        ([by_trainer(row(1), 0.5)], {}, "UNKNOWN"),
        ([row(1, progress=1.0)], {}, "UNKNOWN"),  # a key of the trial's own: 1 %, say
        ([row(1, progress=1.0, best_loss=1.0)], {}, "UNKNOWN"),
        ([row(1, progress=1.0, epoch=1) | {"step": 8}], {}, "UNKNOWN"),
        ([by_trainer(row(1), 1.0), by_trainer(row(2), 2.0)], {}, "UNKNOWN"),  # per cent
        ([by_trainer(row(1), 2.0), by_trainer(row(2), 1.0)], {}, "UNKNOWN"),
        ([row(1, stop_reason="max_tokens")], {}, "UNKNOWN"),  # a key of the trial's own
        ([row(1, stop_reason="error: too long")], {}, "UNKNOWN"),
        ([row(1, stop_reason=3)], {}, "UNKNOWN"),
        ([row(1, stop_reason="MaximumIterationStopper fired")], {}, "TERMINATED"),
        ([row(1, stop_reason="Mine fired; PatienceStopper: 3 of 3")], {}, "TERMINATED"),
        ([row(1, stop_reason="user: bored")], {}, "UNKNOWN"),  # Ray marks the end of such a trial
        ([row(1)], {}, "UNKNOWN"),
        ([], {}, "UNKNOWN"),
        ([], {"error_txt": failure("2026-01-02_03-00-00")}, "ERROR"),
        ([row(1)], {"error_txt": failure("2026-01-02_03-01-05")}, "ERROR"),
        ([row(1), row(2)], {"error_txt": failure("2026-01-02_03-01-05")}, "UNKNOWN"),
        ([row(1), row(2, done=True)], {"error_txt": failure("2026-01-02_03-01-05")}, "TERMINATED"),
        ([by_trainer(row(1), 1.0)], {"error_txt": failure("2026-01-02_03-01-05")}, "ERROR"),
        ([row(1, done=True)], {"error_txt": failure("2026-01-02_03-01-05")}, "ERROR"),  # saving
        ([row(1)], {"error_txt": "said otherwise"}, "ERROR"),
        ([row(1)], {"error_pkl": "not read"}, "ERROR"),
    ],
)
def test_status_is_what_the_files_tell(
    tmp_path: Path, rows: list[dict[str, Any]], files: dict[str, str], status: str
) -> None:
    """Stopped, finished, failed for good, or not known; a failure it went on after is no end."""
    write(tmp_path, rows, **files)
    (record,) = Experiment.at(tmp_path).trials()
    assert (record.trial_id, record.status) == ("9f18b_00000", status)


STOP = {"action": "STOP", "owner": "Sched", "reason": "rank 3 of 3", "step": 2, "time": 1002.0}
GO_ON = {"action": "CONTINUE", "owner": "Other", "step": 2, "time": 1002.0}
GIVEN_UP = {"event": "given up", "time": 1003.0, "numbers": {"why": "Sched: no room"}}
AGAIN = {**GO_ON, "step": 3, "time": 1004.0}
ASKED = {"event": "user", "time": 1003.0, "numbers": {"why": "enough"}}


@pytest.mark.parametrize(
    ("lines", "status", "reason"),
    [
        ([{"event": "ended", "step": 2, "time": 1003.0}], "TERMINATED", None),
        ([STOP], "TERMINATED", "Sched: rank 3 of 3"),
        ([STOP, {"event": "ended", "time": 1003.0}], "TERMINATED", "Sched: rank 3 of 3"),
        ([STOP, GO_ON], "TERMINATED", "Sched: rank 3 of 3"),  # another owner, the same report
        ([STOP, {**GO_ON, "step": 3}], "UNKNOWN", None),  # the stop was never carried out
        ([{**STOP, "dry_run": True}], "UNKNOWN", None),
        ([{**STOP, "early": True}], "UNKNOWN", None),  # before `start_after`
        ([GO_ON], "UNKNOWN", None),
        ([{"event": "ended", "step": 1, "time": 1000.5}], "UNKNOWN", None),  # it reported later
        ([GO_ON, GIVEN_UP], "TERMINATED", "Sched: no room"),  # it was paused
        (
            [GO_ON, GIVEN_UP, {**GO_ON, "step": 3, "time": 1004.0}],
            "UNKNOWN",
            None,
        ),  # Ray had forgotten that
        ([GO_ON, ASKED], "TERMINATED", "user: enough"),  # it was waiting
    ],
)
def test_the_journal_tells_endings_too(
    tmp_path: Path, lines: list[dict[str, Any]], status: str, reason: str | None
) -> None:
    """A trial that our stopper or scheduler saw end, and that did not go on, has ended."""
    write(tmp_path, [row(1), row(2)])
    write_journal(tmp_path, lines)
    frame = best_states(tmp_path, "loss", "min")
    assert frame["status"].tolist() == [status]
    assert frame["reason"].tolist() == [reason]


def test_pickles_are_never_read_nor_is_an_old_snapshot_believed(tmp_path: Path) -> None:
    """Neither makes a difference to a trial that reported after it."""
    write(tmp_path, [row(1)], params_pkl="no pickle", error_pkl_x="no pickle")
    said = json.dumps({"trial_id": "9f18b_00000", "status": "TERMINATED"})
    state = {"trial_data": [[said, "{}"]]}
    (tmp_path / "experiment_state-2026-01-02_03-04-05.json").write_text(json.dumps(state))
    (tmp_path / "tuner.pkl").write_text("no pickle")
    (record,) = Experiment.at(tmp_path).trials()
    assert record.status == "UNKNOWN"


@pytest.mark.parametrize(
    ("folder", "trial_id"),
    [
        (FOLDER, "9f18b_00000"),
        ("train_abcdef12_7_lr=0.1000_2026-01-02_03-04-05", "abcdef12"),
        ("my_own_name", "my_own_name"),
    ],
)
def test_a_trial_that_never_reported_has_its_id(tmp_path: Path, folder: str, trial_id: str) -> None:
    """Ray's folder names carry it; of another name, the name is all there is."""
    write(tmp_path, [], folder)
    (record,) = Experiment.at(tmp_path).trials()
    assert record.trial_id == trial_id


@pytest.mark.parametrize("line", ['{"tr', "[" * 200_000, '"text"', ""])
def test_a_broken_line_is_left_out(tmp_path: Path, line: str, caplog: Any) -> None:
    """What a crash cut off, or what is no report, hides no other."""
    trial = write(tmp_path, [row(1), row(2)])
    whole = (trial / "result.json").read_text()
    (trial / "result.json").write_text(whole + line + "\n" + json.dumps(row(3)))
    with caplog.at_level(logging.WARNING, "tune_stoppers"):
        (record,) = Experiment.at(tmp_path).trials()
    assert [row["training_iteration"] for row in record.rows] == [1, 2, 3]
    assert ("line 3 is torn" in caplog.text) == bool(line)


def test_other_filesystems_are_read(tmp_path: Path) -> None:
    """An experiment on a filesystem of one's own: found, and its best state copied and loaded."""
    storage = tmp_path / "bucket"
    trial = write(storage / "sweep", [row(1, 2.0, checkpoint_dir_name="checkpoint_000000")])
    (trial / "checkpoint_000000").mkdir()
    (trial / "checkpoint_000000" / "loss.json").write_text("2.0")
    remote = fs.SubTreeFileSystem(str(storage), fs.LocalFileSystem())
    frame = best_states("sweep", "loss", "min", filesystem=remote)
    assert frame["checkpoint"].tolist() == [f"sweep/{FOLDER}/checkpoint_000000"]
    best = best_state("sweep", "loss", "min", filesystem=remote)
    with best.directory() as folder:
        assert Path(folder, "loss.json").read_text() == "2.0"
        assert not Path(folder).is_relative_to(storage)
    assert not Path(folder).exists()
    with pytest.raises(ExperimentError, match="not a folder"):
        best_states("absent", "loss", "min", filesystem=remote)


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("{storage}/train_1/checkpoint_1", True),
        ("{storage}/sweep/inner/checkpoint_1", True),
        ("{storage}/train_1/absent", False),
        ("{outside}/checkpoint_1", False),
        ("{storage}/../outside/checkpoint_1", False),
        ("checkpoint_1", False),
    ],
)
def test_train_checkpoints_are_found_in_the_same_storage(
    tmp_path: Path, where: str, found: bool
) -> None:
    """A path out of a report is followed within the storage path of the experiment alone."""
    storage, outside = tmp_path / "storage", tmp_path / "outside"
    for folder in (storage / "train_1", storage / "sweep" / "inner", outside):
        (folder / "checkpoint_1").mkdir(parents=True)
    path = where.format(storage=storage, outside=outside)
    write(storage / "sweep", [row(1, checkpoint_path=path, checkpoint_dir_name=None)])
    (kept,) = best_states(storage / "sweep", "loss", "min")["checkpoint"]
    assert kept == (path if found else None)


def test_a_trial_that_ray_made_again_counts_once(tmp_path: Path) -> None:
    """A kill before Ray's first snapshot leaves a folder; the newest one is the trial's."""
    older, newer = (FOLDER.replace("03-04-05", time) for time in ("03-04-05", "03-04-06"))
    write(tmp_path, [row(1), row(2, loss=0.1)], newer.replace("0.1000", "0.0500"))
    write(tmp_path, [row(1, loss=0.01)], older)
    frame = best_states(tmp_path, "loss", "min")
    assert frame[["trial_id", "best_value"]].values.tolist() == [["9f18b_00000", 0.1]]


def test_steps_are_counted_as_the_journal_counts(tmp_path: Path) -> None:
    """As on the command line; where no report has that, or nobody says, by Ray's iterations."""
    trial = write(tmp_path, [row(1, tokens=1000, checkpoint_dir_name="checkpoint_000000")])
    (trial / "checkpoint_000000").mkdir()
    assert best_state(tmp_path, "loss", "min").step == 1
    write_journal(tmp_path, [ABOUT_LOSS | {"time_attr": "tokens", "sign": 1}])
    assert best_state(tmp_path, "loss", "min").step == 1000
    found = best_of(str(tmp_path))
    assert "at tokens 1000" in found.headline[0]
    assert found.table(1)[0][2] == "at tokens"
    assert best_state(tmp_path, "loss", "min", time_attr="training_iteration").step == 1
    shutil.rmtree(tmp_path / "tune_stoppers")
    write_journal(tmp_path, [ABOUT_LOSS | {"time_attr": "misspelt"}])
    assert best_state(tmp_path, "loss", "min").step == 1
    for name in ("00000", f"train_{row(1)['trial_id']}", "9f1"):
        assert best_state(tmp_path, "loss", "min", trial_id=name).value == 1.0


def judged(step: int, value: Any, **more: Any) -> dict[str, Any]:
    """A report of the trial in the journal, half a second after `row`'s."""
    line = {"action": "CONTINUE", "step": step, "value": value, "time": 1000.5 + step}
    return line | {"checkpoint": f"checkpoint_{step - 1:06d}"} | more


ABOUT_LOSS = {"event": "begins", "trial": "", "metric": "loss", "time_attr": "training_iteration"}
FORGOTTEN = {"event": "forgot", "trial": "", "time": 1005.0, "trials": ["9f18b_00000"]}
ADDED = {"event": "trial"}
FIRST = row(1, 2.0, checkpoint_dir_name="checkpoint_000000")
REPORTED = [judged(1, 2.0), judged(2, 0.5), judged(3, 0.7, checkpoint=None)]


@pytest.mark.parametrize("rows", [None, [], [FIRST]])
def test_reports_that_a_kill_took_are_those_of_the_journal(
    tmp_path: Path, rows: list[dict[str, Any]] | None
) -> None:
    """A trial paused between two uploads of Ray's, and given up after a restore, ran all the same.

    Its folder may have lost the newest of its results, all of them, or the parameters too.
    """
    trial = write(tmp_path, rows or [])
    write(tmp_path, [row(1, 3.0, trial_id="9f18b_00001")], FOLDER.replace("00000_0", "00001_1"))
    for step in range(2):
        (trial / f"checkpoint_{step:06d}").mkdir()
    if rows is None:
        (trial / "params.json").unlink()
        (trial / "result.json").unlink()
    given_up = {"event": "given up", "time": 1010.0, "numbers": {"why": "Sched: rank 9 of 9"}}
    write_journal(tmp_path, [ABOUT_LOSS, ADDED, *REPORTED, given_up])
    told, other = best_states(tmp_path, "loss", "min").to_dict("records")
    assert (told["trial_id"], told["reason"]) == ("9f18b_00000", "Sched: rank 9 of 9")
    assert (told["best_step"], told["best_value"]) == (2, 0.5)
    assert told["reports"] == len(rows or [])  # those that Ray still has
    assert (told["checkpoint_step"], told["checkpoint_value"]) == (2, 0.5)
    assert told["checkpoint"] == f"{trial}/checkpoint_000001"
    assert (other["trial_id"], other["reports"]) == ("9f18b_00001", 1)


@pytest.mark.parametrize(
    ("about", "lines", "best"),
    [
        ({}, REPORTED, 0.5),
        ({}, [*REPORTED, FORGOTTEN], 2.0),
        ({}, [*REPORTED, FORGOTTEN, judged(2, 0.9, time=1007.0)], 0.9),
        ({}, [*REPORTED, judged(2, 0.9)], 0.9),  # it came there again, another way
        ({}, [judged(1, 0.1)], 2.0),  # the results tell of that checkpoint, and are newer
        ({}, [judged(3, 0.1)], 2.0),  # the checkpoint is gone
        ({}, [judged(2, None), judged(2, "nan")], 2.0),
        ({"metric": "accuracy"}, REPORTED, 2.0),
        ({"time_attr": "epoch"}, REPORTED, 2.0),
    ],
)
def test_a_lost_report_counts_if_its_checkpoint_is_there(
    tmp_path: Path, about: dict[str, str], lines: list[dict[str, Any]], best: float
) -> None:
    """The newest of that name; of this metric, by this time, and of a trial that Ray has."""
    trial = write(tmp_path, [FIRST])
    for step in range(2):
        (trial / f"checkpoint_{step:06d}").mkdir()
    write_journal(tmp_path, [ABOUT_LOSS | about, *lines])
    told = best_states(tmp_path, "loss", "min")
    assert told[["best_value", "checkpoint_value"]].values.tolist() == [[best, best]]


@pytest.mark.parametrize(
    "lines", [[], [ABOUT_LOSS, ADDED, FORGOTTEN], [ABOUT_LOSS, ADDED, *REPORTED, FORGOTTEN]]
)
def test_a_folder_that_nobody_knows_is_no_trial(
    tmp_path: Path, lines: list[dict[str, Any]]
) -> None:
    """One without results and parameters, of a trial that was forgotten."""
    write(tmp_path, [row(1, trial_id="9f18b_00001")], FOLDER.replace("00000_0", "00001_1"))
    (tmp_path / FOLDER / "checkpoint_000000").mkdir(parents=True)
    write_journal(tmp_path, lines)
    assert best_states(tmp_path, "loss", "min")["trial_id"].tolist() == ["9f18b_00001"]


@pytest.mark.parametrize("name", ["../../outside", "/outside", "params.json", "absent"])
def test_a_checkpoint_name_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    """Only folders that lie in the trial's own count as its checkpoints."""
    (tmp_path / "outside").mkdir()
    write(tmp_path / "sweep", [row(1, checkpoint_dir_name=name)])
    (kept,) = best_states(tmp_path / "sweep", "loss", "min")["checkpoint"]
    assert kept is None


@pytest.mark.parametrize("text", ['{"lr', "[" * 200_000, "[1]"])
def test_a_broken_config_is_left_out(tmp_path: Path, text: str) -> None:
    """The trial's reports are still there."""
    trial = write(tmp_path, [row(1)])
    (trial / "params.json").write_text(text)
    (record,) = Experiment.at(tmp_path).trials()
    assert (record.config, len(record.rows)) == ({}, 1)
