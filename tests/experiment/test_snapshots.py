"""Ray's snapshots: which are whole, the copy that is kept, and what is done about a torn one."""

import json
import logging
import pickle
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pyarrow.fs as pafs
import pytest

from tune_stoppers.experiment.snapshots import (
    _KEPT,
    COPY,
    SnapshotKeeper,
    is_whole,
    mend_snapshot,
    read_copy,
    snapshots_in,
)

DISK = pafs.LocalFileSystem()
FIRST, SECOND = "2027-01-15_08-00-00", "2027-01-15_09-00-00"
STATE = json.dumps({"trial_data": [['{"trial_id": "a"}', "{}"]], "runner_data": {}}).encode()
PICKLE = pickle.dumps({"counter": 3, "left": list(range(300))})


def write(folder: Path, session: str, **instead: bytes) -> None:
    """A session's files, each whole unless `instead` says otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"experiment_state-{session}.json").write_bytes(instead.get("state", STATE))
    (folder / f"basic-variant-state-{session}.json").write_bytes(instead.get("variants", PICKLE))
    (folder / f"callback-states-{session}.pkl").write_bytes(instead.get("callbacks", PICKLE))
    if "searcher" in instead:
        (folder / f"search_gen_state-{session}.json").write_bytes(PICKLE)
        (folder / f"searcher-state-{session}.pkl").write_bytes(instead["searcher"])


def content(folder: Path) -> dict[str, bytes]:
    """What Ray would read."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix in (".json", ".pkl")}


def keep(staging: Path, root: Path) -> None:
    """Copy a snapshot of the driver's, as a new process would."""
    storage = SimpleNamespace(
        experiment_driver_staging_path=str(staging),
        experiment_fs_path=str(root),
        storage_filesystem=DISK,
    )
    SnapshotKeeper(storage).look()


def test_no_beginning_of_a_file_is_whole() -> None:
    for name, data in (
        (f"experiment_state-{FIRST}.json", STATE),
        (f"basic-variant-state-{FIRST}.json", PICKLE),
        (f"searcher-state-{FIRST}.pkl", PICKLE),
    ):
        assert is_whole(name, data)
        assert not any(is_whole(name, data[:cut]) for cut in range(len(data))), name
    assert not is_whole(f"experiment_state-{FIRST}.json", b"[]")
    assert not is_whole(f"basic-variant-state-{FIRST}.json", b"garbage")
    assert is_whole(f"searcher-state-{FIRST}.pkl", b"what a searcher likes"), "its own business"


@pytest.mark.parametrize("torn", ["state", "variants", "callbacks", "searcher"])
@pytest.mark.parametrize("left", [0, 20])
def test_the_copy_takes_the_place_of_a_torn_snapshot(
    tmp_path: Path, torn: str, left: int, caplog: pytest.LogCaptureFixture
) -> None:
    """All of it: the files of a snapshot belong together."""
    write(tmp_path / "staging", FIRST, searcher=PICKLE)
    keep(tmp_path / "staging", tmp_path / "x")
    newer = STATE.replace(b'"a', b'"b')
    half = {torn: (STATE if torn == "state" else PICKLE)[:left]}
    write(tmp_path / "x", FIRST, **({"state": newer, "searcher": PICKLE} | half))
    with caplog.at_level(logging.WARNING, "tune_stoppers"):
        assert mend_snapshot(DISK, str(tmp_path / "x"))
    assert content(tmp_path / "x") == content(tmp_path / "staging")
    (told,) = caplog.messages
    assert "anew" in told
    assert "the copy" in told


def test_a_copy_of_an_earlier_session(tmp_path: Path) -> None:
    """The later session's files are set aside: Ray takes the newest of each kind."""
    write(tmp_path / "staging", FIRST)
    keep(tmp_path / "staging", tmp_path / "x")
    write(tmp_path / "x", FIRST, state=b"")
    write(tmp_path / "x", SECOND, variants=b"")
    assert mend_snapshot(DISK, str(tmp_path / "x"))
    assert content(tmp_path / "x") == content(tmp_path / "staging")


@pytest.mark.parametrize("copy", [None, b"", b"PK\x03\x04 torn too"])
def test_the_session_before_where_there_is_no_copy(tmp_path: Path, copy: bytes | None) -> None:
    write(tmp_path, FIRST)
    before = content(tmp_path)
    write(tmp_path, SECOND, state=STATE[:-1])
    if copy is not None:
        (tmp_path / "tune_stoppers").mkdir()
        (tmp_path / "tune_stoppers" / COPY).write_bytes(copy)
    assert mend_snapshot(DISK, str(tmp_path))
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    ("torn", "words"), [("callbacks", "the trials in it continue"), ("variants", "never made")]
)
def test_what_ray_can_do_without_is_set_aside(
    tmp_path: Path, torn: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, FIRST, **{torn: b""})
    with caplog.at_level(logging.WARNING, "tune_stoppers"):
        assert mend_snapshot(DISK, str(tmp_path))
    assert len(content(tmp_path)) == 2
    assert words in caplog.text


@pytest.mark.parametrize("torn", ["state", "searcher"])
def test_where_nothing_can_be_used_it_is_said_and_nothing_is_changed(
    tmp_path: Path, torn: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, FIRST, **({"searcher": PICKLE} | {torn: b"\x80"}))
    before = content(tmp_path)
    with caplog.at_level(logging.WARNING, "tune_stoppers"):
        assert not mend_snapshot(DISK, str(tmp_path))
    assert content(tmp_path) == before
    (told,) = caplog.messages
    assert "begins the sweep anew" in told


def test_a_whole_snapshot_is_left_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "staging", FIRST, state=STATE.replace(b'"a', b'"old'))
    keep(tmp_path / "staging", tmp_path / "x")
    write(tmp_path / "x", FIRST)
    before = content(tmp_path / "x")
    assert mend_snapshot(DISK, str(tmp_path / "x"))
    assert content(tmp_path / "x") == before
    assert not mend_snapshot(DISK, str(tmp_path / "no such folder"))
    assert not caplog.messages


def test_only_what_is_new_is_copied_and_only_the_newest_session(tmp_path: Path) -> None:
    staging, root = tmp_path / "staging", tmp_path / "x"
    keep(staging, root)
    assert not root.exists(), "there is nothing to keep yet"
    write(staging, FIRST)
    write(staging, SECOND)
    (staging / "tuner.pkl").write_bytes(PICKLE)
    keep(staging, root)
    kept = read_copy(DISK, str(root))
    assert kept is not None
    assert sorted(kept.files) == sorted(snapshots_in(DISK, str(staging))[SECOND])
    written = (root / "tune_stoppers" / COPY).stat().st_mtime_ns
    keep(staging, root)
    assert (root / "tune_stoppers" / COPY).stat().st_mtime_ns == written


def test_a_copy_of_somebody_elses_making_writes_nothing_elsewhere(tmp_path: Path) -> None:
    write(tmp_path / "x", FIRST, state=b"")
    (tmp_path / "x" / "tune_stoppers").mkdir()
    for name, how in ((f"../experiment_state-{FIRST}.json", zipfile.ZIP_STORED), ("a", 8)):
        with zipfile.ZipFile(tmp_path / "x" / "tune_stoppers" / COPY, "w", how) as packed:
            packed.writestr(name, STATE)
        assert read_copy(DISK, str(tmp_path / "x")) is None
        assert not mend_snapshot(DISK, str(tmp_path / "x"))
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_disk_that_fails_ends_no_sweep(tmp_path: Path) -> None:
    write(tmp_path / "staging", FIRST)
    (tmp_path / "x").write_text("a file where the folder should be")
    keep(tmp_path / "staging", tmp_path / "x")
    assert (tmp_path / "x").read_text() == "a file where the folder should be"


def test_what_ray_wrote_of_the_tuner_is_kept_while_it_is_whole(tmp_path: Path) -> None:
    """A restored driver that was killed as it wrote it leaves the copy of the one before."""
    root = tmp_path / "x"
    for place, (session, data) in enumerate(
        [(FIRST, PICKLE), (SECOND, PICKLE[:-9]), (SECOND, b"")]
    ):
        root.mkdir(exist_ok=True)
        (root / "tuner.pkl").write_bytes(data)
        write(tmp_path / f"staging{place}", session)
        _KEPT.clear()  # as in a process of its own
        keep(tmp_path / f"staging{place}", root)
        assert (root / "tune_stoppers" / "tuner.pkl").read_bytes() == PICKLE
