"""Trials as Ray's newest snapshot has them: those that run, wait, failed or were cut off."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.experiment.test_folder import FOLDER, failure, row, write, write_journal
from tests.stand_ins.snapshots import PICKLE, listed, snapshot
from tune_stoppers import best_states
from tune_stoppers.experiment.folder import Experiment
from tune_stoppers.report import experiment_story
from tune_stoppers.report.data.explain import explain

ID = "9f18b_00000"
OTHER = FOLDER.replace("00000_0", "00001_1")


def told(root: Path) -> dict[str, tuple[str, str, str]]:
    """Of each trial its status, and how `explain` puts its end."""
    frame = explain(root)
    columns = (frame[name] for name in ("trial_id", "status", "ending", "cause"))
    return {trial[-5:]: tuple(more) for trial, *more in zip(*columns, strict=True)}


ENDS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, str, str]]] = {
    "runs": ({}, {"status": "RUNNING"}, ("RUNNING", "unfinished", "running or cut off")),
    "is paused": ({}, {"status": "PAUSED"}, ("PAUSED", "unfinished", "paused")),
    "waits": ({}, {"status": "PENDING"}, ("PENDING", "unfinished", "waiting to continue")),
    "returned": (
        {},
        {"status": "TERMINATED", "last": row(2, done=True)},
        ("TERMINATED", "finished", "ran to the last step"),
    ),
    "the sweep ended": (
        {},
        {"status": "TERMINATED", "last": row(2)},
        ("TERMINATED", "stopped", "stopped with the sweep"),
    ),
    "failed after it was done": (
        {"done": True},
        {"status": "ERROR", "failures": 1, "last": row(2, done=True)},
        ("ERROR", "failed", "failed"),
    ),
    "reported after the snapshot": (
        {},
        {"status": "TERMINATED", "last": row(1)},
        ("UNKNOWN", "unfinished", "no end recorded"),
    ),
    "ended after the snapshot": (
        {"done": True},
        {"status": "RUNNING", "last": row(1)},
        ("TERMINATED", "unexplained", "stopped, cause unknown"),
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_has_not_ended_did_not_run_to_the_last_step(tmp_path: Path, name: str) -> None:
    """Also where another trial is as far, and ended there."""
    last, said, expected = ENDS[name]
    write(tmp_path, [row(1), row(2, **last)])
    write(tmp_path, [row(n, trial_id="9f18b_00001") for n in (1, 2)], OTHER)
    if name == "ended after the snapshot":  # the longest is another one
        write(tmp_path, [row(3, trial_id="c_00002")], FOLDER.replace("9f18b_00000_0", "c_00002_2"))
    said = {"last": row(2)} | said
    snapshot(tmp_path, listed(ID, said.pop("status"), FOLDER, **said))
    assert told(tmp_path)["00000"] == expected


def test_trials_that_have_not_started_are_counted(tmp_path: Path) -> None:
    """With their configurations; and that there may be more, if Ray made no more beforehand."""
    write(tmp_path, [row(1)])
    waiting = [
        listed(f"9f18b_0000{n}", status, started=False, config={"lr": 0.1 * n, "f": PICKLE})
        for n, status in enumerate(("PENDING", "PAUSED", "PENDING"), start=1)  # PAUSED: held back
    ]
    running = listed(ID, "RUNNING", FOLDER, last=row(1))
    snapshot(tmp_path, running, *waiting, most_pending=3)
    frame = best_states(tmp_path, "loss", "min")
    assert frame["status"].tolist() == ["RUNNING", *["PENDING"] * 3]
    assert frame["config/lr"].tolist() == pytest.approx([0.1, 0.1, 0.2, 0.3])
    assert frame["reports"].tolist() == [1, 0, 0, 0]
    assert told(tmp_path)["00002"] == ("PENDING", "unfinished", "waiting to start")
    story = experiment_story(tmp_path, "loss", "min")
    assert story.standing[-2:] == (
        "3 of 4 trials have not started.",
        "More trials may follow: Ray makes no more of them beforehand.",
    )
    assert "1 of 4 trials had not ended when Ray last noted it: 1 running" in story.standing[0]
    snapshot(tmp_path, running, *waiting)
    assert experiment_story(tmp_path, "loss", "min").standing[-1] == story.standing[-2]


def test_a_schedulers_journal_knows_who_waits(tmp_path: Path) -> None:
    """Without a snapshot too; and how many trials there are to be."""
    write(tmp_path, [row(1)])
    added = [{"event": "trial", "trial": f"9f18b_0000{n}"} for n in range(4)]
    begins = {"event": "begins", "trial": "", "planned": 60}
    lost = {"event": "lost", "trial": "9f18b_00003"}
    judged = {"action": "CONTINUE", "step": 1}
    write_journal(tmp_path, [begins, *added, judged, lost])
    frame = best_states(tmp_path, "loss", "min")
    assert frame["trial_id"].tolist() == ["9f18b_00001", "9f18b_00002", ID]
    assert frame["status"].tolist() == ["PENDING", "PENDING", "UNKNOWN"]
    standing = experiment_story(tmp_path, "loss", "min").standing
    assert standing == ("2 of 3 trials have not started.", "57 more trials are planned.")


def test_a_trial_whose_start_failed_is_a_trial(tmp_path: Path) -> None:
    """Its folder has an error and nothing else; without a snapshot too, whatever its name."""
    write(tmp_path, [row(1)])
    for folder, trial_id in ((OTHER, "9f18b_00001"), ("my_own_name", "my_own_name")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "error.txt").write_text(failure("2026-01-02_03-04-05"))
        assert told(tmp_path)[trial_id[-5:]] == ("ERROR", "failed", "failed")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "error.txt").write_text("my own notes")
    assert len(best_states(tmp_path, "loss", "min")) == 3
    said = listed("9f18b_00001", "ERROR", OTHER, failures=1, config={"lr": 0.2})
    snapshot(tmp_path, said)
    frame = best_states(tmp_path, "loss", "min").set_index("trial_id")
    assert frame.loc["9f18b_00001", "config/lr"] == 0.2


def test_a_failure_that_is_tried_again_is_no_end(tmp_path: Path) -> None:
    """If Ray's snapshot knows of the failure; one that came after it may be the last."""
    write(tmp_path, [row(1)], error_txt=failure("2026-01-02_03-01-05"))
    for failures, expected in ((1, "waiting for another try"), (0, "failed")):
        said = listed(ID, "PENDING", FOLDER, failures=failures, last=row(1))
        snapshot(tmp_path, said)
        assert told(tmp_path)["00000"][2] == expected


def test_the_newest_snapshot_counts_and_a_torn_one_says_nothing(tmp_path: Path) -> None:
    """Ray writes another one after a restore. What is not as Ray writes it is left out."""
    write(tmp_path, [row(1)])
    snapshot(tmp_path, listed(ID, "RUNNING", FOLDER, last=row(1)))
    newest = snapshot(
        tmp_path, listed(ID, "PAUSED", FOLDER, last=row(1)), time="2026-01-02_03-04-06"
    )
    assert told(tmp_path)["00000"][0] == "PAUSED"
    pair = listed(ID, "PAUSED", FOLDER)
    strange = [
        pair[0].replace(ID, "x"),
        '{"num_failures": NaN, "last_result": {"timestamp": 1e999}}',
    ]
    for odd in (
        newest.read_text()[:-9],
        "[]",
        '{"trial_data": 3, "runner_data": []}',
        json.dumps({"trial_data": [3, [], ["{", "{}"], [3, 4], listed("x", "ODD")]}),
        json.dumps({"trial_data": [["[1]", pair[1]]]}),
    ):
        newest.write_text(odd)
        assert told(tmp_path) == {"00000": ("UNKNOWN", "unfinished", "no end recorded")}
    newest.write_text(json.dumps({"trial_data": [strange], "runner_data": {}}))
    assert told(tmp_path)["x"][0] == "PAUSED"


def test_a_hostile_name_in_a_snapshot_leads_nowhere(tmp_path: Path) -> None:
    """Neither a folder nor an id."""
    root = tmp_path / "sweep"
    write(root, [row(1)])
    (tmp_path / "error.txt").write_text(failure("2026-01-02_03-04-05"))
    names = ("..", "../..", "/etc", "a\0b", ".")
    snapshot(root, *(listed(f"{name}{n}", "ERROR", name) for n, name in enumerate(names)))
    frame = explain(root)
    assert len(frame) == 1 + len(names)
    assert set(frame["reason"][frame["ending"] == "failed"]) == {"no error was kept"}
    assert all("/" not in r.folder[len(str(root)) + 1 :] for r in Experiment.at(root).trials())
