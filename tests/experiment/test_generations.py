"""Two sweeps in one folder: the second was begun anew, by its user or by Ray after a kill."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.fs as pafs
import pytest

from tune_stoppers import best_state, best_states, explain
from tune_stoppers.cli import main
from tune_stoppers.experiment import folder as experiment
from tune_stoppers.experiment.folder import Experiment, ExperimentError
from tune_stoppers.journal.lines import BEGINS, ENDED, FORGOT, RESTORED, TRIAL
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.report.data.from_experiment import experiment_story
from tune_stoppers.report.terminal.best import best_of

FIRST, AGAIN, ANEW = "2027-01-15_08-00-00", "2027-01-15_09-00-00", "2027-01-15_10-00-00"
RUN = "BoundASHAScheduler-0123abcd"


@pytest.fixture(autouse=True)
def nothing_told() -> Iterator[None]:
    experiment._TOLD.clear()
    yield
    experiment._TOLD.clear()


def trial(root: Path, trial_id: str, born: str, loss: float) -> Path:
    folder = root / f"train_{trial_id}_1_x=1_{born}"
    (folder / "checkpoint_000000").mkdir(parents=True)
    (folder / "params.json").write_text("{}")
    row = {"trial_id": trial_id, "training_iteration": 1, "loss": loss, "done": True}
    row |= {"checkpoint_dir_name": "checkpoint_000000", "timestamp": 1_800_000_000}
    row |= {"time_total_s": 1.0, "time_this_iter_s": 1.0}
    (folder / "result.json").write_text(json.dumps(row) + "\n")
    return folder


def snapshot(root: Path, session: str, *trial_ids: str, torn: bool = False) -> None:
    listed = [[json.dumps({"trial_id": t}), "{}"] for t in trial_ids]
    text = json.dumps({"trial_data": listed, "runner_data": {}})
    (root / f"experiment_state-{session}.json").write_text(text[:-5] if torn else text)


def journal(root: Path, birth: str, *lines: dict[str, Any]) -> None:
    path = root / "tune_stoppers" / f"{birth}-{RUN}" / "journal-000000000001.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    begins = {"trial": "", "event": BEGINS, "metric": "loss", "sign": 1}
    begins |= {"time_attr": "training_iteration", "rule": "BoundASHA"}
    with path.open("a") as file:
        for i, line in enumerate([begins, *lines]):
            file.write(json.dumps({"time": 1_800_000_000.0 + i} | line) + "\n")


def judged(trial_id: str, loss: float) -> list[dict[str, Any]]:
    report: dict[str, Any] = {"trial": trial_id, "step": 1, "value": loss}
    decision = {"action": "CONTINUE", "rule": "BoundASHA", "reason": f"said of {trial_id}"}
    return [
        {"trial": trial_id, "event": TRIAL, "config": "c"},
        report | decision | {"numbers": {}},
        report | {"event": ENDED},
    ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Trials a0, a1, a2 of a sweep that was restored once; then b0 and b1, as Ray began it anew.

    a2 and b1 were added after the last snapshot of their sweep.
    """
    root = tmp_path / "sweep"
    trial(root, "aaaaa_00000", "2027-01-15_08-00-05", 1.0)
    trial(root, "aaaaa_00001", "2027-01-15_08-00-06", 2.0)
    trial(root, "aaaaa_00002", "2027-01-15_09-00-05", 3.0)
    trial(root, "bbbbb_00000", "2027-01-15_10-00-05", 4.0)
    trial(root, "bbbbb_00001", "2027-01-15_10-00-09", 5.0)
    snapshot(root, FIRST, "aaaaa_00000")
    snapshot(root, AGAIN, "aaaaa_00000", "aaaaa_00001")
    snapshot(root, ANEW, "bbbbb_00000")
    return root


NEWEST, EARLIER = ["bbbbb_00000", "bbbbb_00001"], ["aaaaa_00000", "aaaaa_00001", "aaaaa_00002"]


def ids(frame: Any) -> list[str]:
    return sorted(frame["trial_id"])


def test_the_newest_sweep_alone_by_default(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And one sentence, once, of the other and how to see it."""
    with caplog.at_level(logging.WARNING, "tune_stoppers"):
        assert ids(best_states(root, "loss", "min")) == NEWEST
        assert best_state(root, "loss", "min").value == 4.0
        assert ids(explain(root)) == NEWEST
        assert sorted(c.trial_id for c in Sweep.from_ray(root)) == NEWEST
        story = experiment_story(root, "loss", "min")
        assert sorted(t.trial_id for t in story.trials) == NEWEST
        assert "--generation 1" in story.notes[0]
        assert [row["trial_id"] for row in best_of(str(root), "loss", "min").states] == NEWEST
    (told,) = caplog.messages
    assert "an earlier sweep, of 3 trials" in told
    assert "--generation 1" in told


def test_the_earlier_one_if_asked_for(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tune_stoppers"):
        assert ids(best_states(root, "loss", "min", generation=1)) == EARLIER
        assert best_state(root, "loss", "min", generation=1).value == 1.0
        assert ids(explain(root, generation=1)) == EARLIER
        assert sorted(c.trial_id for c in Sweep.from_ray(root, generation=1)) == EARLIER
        story = experiment_story(root, "loss", "min", generation=1)
        assert sorted(t.trial_id for t in story.trials) == EARLIER
    assert not caplog.messages
    with pytest.raises(ExperimentError, match=r"no sweep generation=2, only 0 .* to 1"):
        best_states(root, "loss", "min", generation=2)
    with pytest.raises(ValueError, match="generation"):
        best_states(root, "loss", "min", generation=-1)


def test_the_snapshot_that_ray_could_not_read_is_torn(root: Path) -> None:
    """That is why there are two; and Ray may be killed again while it writes the newest."""
    snapshot(root, AGAIN, torn=True)
    assert ids(best_states(root, "loss", "min")) == NEWEST
    snapshot(root, ANEW, torn=True)
    assert ids(best_states(root, "loss", "min")) == sorted(NEWEST + EARLIER)


@pytest.mark.parametrize("birth", [FIRST, ANEW], ids=["one journal", "a journal each"])
def test_lines_about_trials_of_the_other_sweep_are_left_out(root: Path, birth: str) -> None:
    """Ray may keep the experiment's birth, and then our journal goes on."""
    journal(root, FIRST, *judged("aaaaa_00000", 1.0), *judged("aaaaa_00001", 2.0))
    gone = {"trial": "", "event": FORGOT, "trials": EARLIER}
    between = [{"trial": "", "event": RESTORED, "trials": 3}, gone]
    journal(root, birth, *between, *judged("bbbbb_00000", 4.0))
    told = {g: explain(root, generation=g).set_index("trial_id") for g in (0, 1)}
    assert told[0].loc["bbbbb_00000", "decisions"] == 1
    assert told[1].loc["aaaaa_00000", "decisions"] == 1
    for generation, own in ((0, {"bbbbb_00000"}), (1, {"aaaaa_00000", "aaaaa_00001"})):
        lines = Experiment.at(root, generation=generation).journal()
        assert {line["trial"] for line in lines} - {""} == own
        assert any(line.get("metric") == "loss" for line in lines)


def test_results_are_of_the_sweep_that_gave_them(root: Path) -> None:
    """Also those that a notebook still holds of the earlier one."""

    class Grid(list[Any]):
        filesystem, experiment_path = pafs.LocalFileSystem(), str(root)

    for generation, wanted in enumerate([NEWEST, EARLIER]):
        folders = [p for p in root.glob("train_*") if any(t in p.name for t in wanted)]
        found = Grid(SimpleNamespace(path=str(p), error=None, metrics={}) for p in folders)
        assert ids(best_states(found, "loss", "min")) == wanted, generation


def test_a_sweep_that_was_restored_is_one(root: Path) -> None:
    """Also with trials that Ray forgot in the kill, or that were started again under new ids."""
    snapshot(root, ANEW, "aaaaa_00001", "bbbbb_00000")
    assert ids(best_states(root, "loss", "min")) == sorted(NEWEST + EARLIER)


def test_folders_that_say_nothing_of_their_birth(tmp_path: Path) -> None:
    """Named by a function of the user's: only what the snapshots list is known."""
    root = tmp_path / "sweep"
    for trial_id in ("a0", "b0", "c0"):
        trial(root, trial_id, FIRST, 1.0).rename(root / f"mine_{trial_id}")
    snapshot(root, FIRST, "a0")
    snapshot(root, ANEW, "b0")
    assert ids(best_states(root, "loss", "min")) == ["b0", "c0"]
    assert ids(best_states(root, "loss", "min", generation=1)) == ["a0"]


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"trial_data": 3, "runner_data": {}}',
        '{"trial_data": [["{}", ""]], "runner_data": {}}',
        '{"trial_data": [["[1", ""], 4], "runner_data": {}}',
        '{"trial_data": [[7, 8]], "runner_data": {}}',
    ],
)
def test_a_snapshot_of_somebody_elses_making_is_left_out(root: Path, text: str) -> None:
    """It is read, and nothing of it is unpickled."""
    (root / f"experiment_state-{ANEW}.json").write_text(text)
    assert ids(best_states(root, "loss", "min")) == sorted(NEWEST + EARLIER)


@pytest.mark.parametrize("command", ["best", "explain", "report"])
def test_the_command_line_shows_either(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    asked = {
        "best": ["--metric", "loss", "--mode", "min", "--json"],
        "explain": ["--json"],
        "report": ["--metric", "loss", "--mode", "min", "-o", str(tmp_path / "page.html")],
    }[command]
    for more, wanted, others in (([], NEWEST, EARLIER), (["--generation", "1"], EARLIER, NEWEST)):
        main([command, str(root), *asked, *more])
        page = tmp_path / "page.html"
        shown = page.read_text() if command == "report" else capsys.readouterr().out
        assert all(trial_id in shown for trial_id in wanted)
        assert not any(trial_id in shown for trial_id in others)
