"""No name or path in a file, and no link, leads out of the experiment's folder."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.fs as pafs
import pytest

from tests.stand_ins.watched import BIRTH, journal_of, watched, write_journal, write_results
from tune_stoppers import Sweep, best_states, explain
from tune_stoppers.experiment.folder import Experiment
from tune_stoppers.experiment.journals import runs_of
from tune_stoppers.experiment.paths import is_inside
from tune_stoppers.experiment.stop_request import ask_to_stop
from tune_stoppers.report import experiment_story
from tune_stoppers.rules import Patience
from tune_stoppers.training.checkpoints import load_weights

LOCAL = pafs.LocalFileSystem()
SECRET = "the secret"


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return watched(tmp_path / "storage" / "sweep")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the storage, that looks like a trial, a checkpoint and a journal."""
    folder = tmp_path / "outside"
    write_results(folder, {"stranger": [0.001, 0.001]})
    write_journal(folder, f"{BIRTH}-Stranger-0123abcd", journal_of(Patience(2), "Stranger"))
    (folder / "checkpoint_000001").mkdir()
    (folder / "secret.txt").write_text(SECRET)
    return folder


def report_with(sweep: Path, **more: Any) -> None:
    """A trial's last report says so too."""
    path = sweep / "train_falling_1" / "result.json"
    rows = [json.loads(row) for row in path.read_text().splitlines()]
    rows[-1] |= more
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def checkpoint_of(sweep: Path, trial: str = "falling") -> Any:
    frame: pd.DataFrame = best_states(sweep, "loss", "min").set_index("trial_id")
    return frame.loc[trial, "checkpoint"]


@pytest.mark.parametrize("key", ["checkpoint_dir_name", "checkpoint_path"])
@pytest.mark.parametrize(
    "path",
    [
        *("..", "../../../outside/checkpoint_000001", "{outside}/checkpoint_000001", "/", "."),
        *("{sweep}/../../outside/checkpoint_000001", "{sweep}/link", "file://{outside}"),
        *("~", "", "\x00"),
    ],
)
def test_a_checkpoint_elsewhere_is_none(sweep: Path, outside: Path, key: str, path: str) -> None:
    """Whatever a result calls its checkpoint: `..`, absolute, or a link out of the storage."""
    (sweep / "link").symlink_to(outside / "checkpoint_000001")
    report_with(sweep, **{key: path.format(outside=outside, sweep=sweep)})
    assert checkpoint_of(sweep) is None


def test_a_checkpoint_that_is_a_link_elsewhere_is_none(
    sweep: Path, outside: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With a note; one that lies there is found."""
    (sweep / "train_falling_1" / "checkpoint_000001").symlink_to(outside / "checkpoint_000001")
    report_with(sweep, checkpoint_dir_name="checkpoint_000001")
    assert checkpoint_of(sweep) is None
    assert "checkpoint_000001 leads out of the experiment's folder" in caplog.text
    (sweep / "train_falling_1" / "checkpoint_000001").unlink()
    (sweep / "train_falling_1" / "checkpoint_000001").mkdir()
    assert checkpoint_of(sweep) == f"{sweep}/train_falling_1/checkpoint_000001"


def test_a_linked_trial_is_left_out(sweep: Path, outside: Path, caplog: Any) -> None:
    """So is a linked file of a trial: its config, its results, its error."""
    (sweep / "train_stranger_9").symlink_to(outside / "train_stranger_0")
    for name in ("params.json", "result.json"):
        (sweep / "train_deep_2" / name).unlink()
        (sweep / "train_deep_2" / name).symlink_to(outside / "train_stranger_0" / name)
    (sweep / "train_broken_3" / "error.txt").unlink()
    (sweep / "train_broken_3" / "error.txt").symlink_to(outside / "secret.txt")
    found = explain(sweep)
    assert {"stranger", "deep"}.isdisjoint(found["trial_id"])
    assert {"stranger", "deep"}.isdisjoint(Sweep.from_ray(sweep).trial_ids)
    assert not found["reason"].str.contains(SECRET).any()
    assert SECRET not in repr(experiment_story(sweep, "loss", "min"))
    assert caplog.text.count("leads out of the experiment's folder") > 2


@pytest.mark.parametrize("link", ["run", "segment", "all"])
def test_a_linked_journal_is_left_out(sweep: Path, outside: Path, link: str) -> None:
    """A run's folder, a segment of it, or the folder of all."""
    run = outside / "tune_stoppers" / f"{BIRTH}-Stranger-0123abcd"
    ours = sweep / "tune_stoppers"
    if link == "run":
        (ours / run.name).symlink_to(run)
    elif link == "segment":
        (ours / run.name).mkdir()
        (segment,) = run.iterdir()
        (ours / run.name / segment.name).symlink_to(segment)
    else:
        ours.rename(sweep.parent / "gone")
        ours.symlink_to(outside / "tune_stoppers")
    assert "Stranger" not in {run.owner for run in runs_of(LOCAL, str(sweep))}


@pytest.mark.parametrize("odd", ["../../x", "/x", "..", ".", "a/b", "", "\x00", "a\n", "~", "-x"])
def test_a_request_stays_in_its_folder(sweep: Path, odd: str) -> None:
    """Ids come out of files too: one that is no id is refused, and nothing is written."""
    report_with(sweep, trial_id=odd)
    path = sweep / "train_falling_1" / "result.json"
    path.write_text(path.read_text().replace('"falling"', json.dumps(odd)))
    before = sorted(sweep.parents[1].rglob("*"))
    with pytest.raises(ValueError, match=r"is no id that Ray gives|No trial"):
        ask_to_stop(sweep, odd)
    assert sorted(sweep.parents[1].rglob("*")) == before


def test_a_request_follows_no_link(sweep: Path, outside: Path) -> None:
    """Neither that of the requests' folder nor one that waits under the request's name."""
    requests = sweep / "tune_stoppers" / "requests"
    requests.symlink_to(outside)
    with pytest.raises(ValueError, match="leads out of the experiment's folder"):
        ask_to_stop(sweep, "running")
    requests.unlink()
    requests.mkdir()
    for name in ("running.json", "running.part", "running.json.part"):
        (requests / name).symlink_to(outside / "secret.txt")
    assert ask_to_stop(sweep, "running", "enough") == "running"
    assert (outside / "secret.txt").read_text() == SECRET
    assert json.loads((requests / "running.json").read_text())["why"] == "enough"


def test_an_experiment_may_itself_be_reached_by_a_link(sweep: Path, tmp_path: Path) -> None:
    """The user gave that path: it is no file that said so."""
    (tmp_path / "shortcut").symlink_to(sweep)
    assert len(best_states(tmp_path / "shortcut", "loss", "min")) == 6
    assert len(runs_of(LOCAL, str(tmp_path / "shortcut"))) == 1


def test_shards_lie_beside_their_index(tmp_path: Path) -> None:
    """An index of weights that names files elsewhere finds none."""
    (tmp_path / "secret.safetensors").write_bytes(b"")
    folder = tmp_path / "checkpoint_000001"
    folder.mkdir()
    for name in ("../secret.safetensors", str(tmp_path / "secret.safetensors"), "..", ""):
        index = {"weight_map": {"a": name}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ValueError, match="cannot be read") as refused:
            load_weights(folder)
        assert str(folder) in str(refused.value)


def test_inside_on_storage_without_links(tmp_path: Path) -> None:
    """Names are enough there; a folder is not inside one whose name begins so."""
    store = (
        pafs._MockFileSystem()
        if hasattr(pafs, "_MockFileSystem")
        else pafs.SubTreeFileSystem(str(tmp_path), LOCAL)
    )
    assert is_inside(store, "bucket/sweep/a", "bucket/sweep")
    for path in ("bucket/sweep", "bucket/sweeper/a", "bucket/sweep/../a", "/etc", "../bucket"):
        assert not is_inside(store, path, "bucket/sweep")
    assert Experiment(store, "bucket/sweep").root == "bucket/sweep"
