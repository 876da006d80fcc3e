"""Ray's snapshots of an experiment: whether they are whole, and a copy of one that is.

Ray writes a snapshot into the experiment's folder over the one before, file by file. A driver that
is killed meanwhile leaves a torn file, and from that Ray begins the whole sweep anew, under new
trial ids. On a local or shared disk our schedulers and stoppers therefore keep a copy of Ray's
newest whole snapshot, which `mend_snapshot` puts back. An object store shows no half of a file.

`tuner.pkl`, which Ray writes when a `Tuner` is made or restored, is torn by a kill in that moment,
and nothing of ours is called before Ray has read it: its copy is put back by hand.
"""

import contextlib
import io
import os
import pickletools
import re
import time
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.fs as pafs

from tune_stoppers.experiment.paths import is_inside
from tune_stoppers.journal.layout import FOLDER, LARGEST_FILE, put_whole
from tune_stoppers.journal.lines import parsed
from tune_stoppers.metrics import logger

COPY = "snapshot.zip"  # in FOLDER
TUNER = "tuner.pkl"  # what Ray writes first; its copy is in FOLDER under the same name
LARGEST_TUNER = 2**20  # bytes; a larger one, with data in it, takes Ray's thread too long
ASIDE = ".torn"  # added to the name of a file that Ray is to read no more
COPY_SECONDS = 5.0  # at least, between two copies
COPY_SHARE = 20  # a copy takes at most one part in so many of the driver's time

# the files of a snapshot: `<family>-<session>.json` or `.pkl`, a session for each life of a driver
_NAMED = re.compile(r"(?P<family>[^/]+)-(?P<session>\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)\.(?:json|pkl)")
STATE, VARIANTS, CALLBACKS = "experiment_state", "basic-variant-state", "callback-states"
PICKLES = (VARIANTS, CALLBACKS, "search_gen_state")  # whatever their names end in
DISPENSABLE = (CALLBACKS, VARIANTS)  # without them Ray still continues the trials that it knows


class Snapshot(NamedTuple):
    """The files that a session wrote, by name."""

    session: str
    files: Mapping[str, bytes]

    @property
    def torn(self) -> list[str]:
        """The names of the files that are not whole."""
        return [name for name, data in self.files.items() if not is_whole(name, data)]

    @property
    def state(self) -> bytes | None:
        """The file that lists the trials, if there is a whole one."""
        for name, data in self.files.items():
            if _family(name) == STATE and is_whole(name, data):
                return data
        return None


def is_whole(name: str, data: bytes) -> bool:
    """Whether a file of a snapshot is whole; nothing is unpickled."""
    if _family(name) == STATE:
        try:
            state = parsed(data.decode())
        except ValueError:
            return False
        return isinstance(state, dict) and {"trial_data", "runner_data"} <= set(state)
    if data[:1] == b"\x80":  # as every pickle begins
        return _is_pickle(data)
    return bool(data) and _family(name) not in PICKLES  # a searcher may write what it likes


def _is_pickle(data: bytes) -> bool:
    """Whether it is one to its end; nothing is unpickled."""
    try:
        return sum(1 for _ in pickletools.genops(data)) > 0
    except Exception:  # it may be anything at all
        return False


def trial_ids(state: bytes) -> set[str]:
    """The ids of the trials that a whole state lists; none where it is not as Ray writes it."""
    try:
        trials = parsed(state.decode())["trial_data"]
        return {str(parsed(trial)["trial_id"]) for trial, _ in trials}
    except (ValueError, TypeError, LookupError):
        return set()


def snapshots_in(filesystem: pafs.FileSystem, root: str) -> dict[str, list[str]]:
    """The names of the files of each session in the experiment's folder, oldest session first."""
    found: dict[str, list[str]] = {}
    for info in filesystem.get_file_info(pafs.FileSelector(root, allow_not_found=True)):
        named = _NAMED.fullmatch(info.base_name)
        if named and info.type is pafs.FileType.File:
            found.setdefault(named["session"], []).append(info.base_name)
    return dict(sorted(found.items()))


def read_snapshot(
    filesystem: pafs.FileSystem, root: str, session: str, names: Iterable[str]
) -> Snapshot:
    """The files `names` of a session; one that is too large to be read counts as torn."""
    files = {}
    for name in names:
        size = filesystem.get_file_info(f"{root}/{name}").size or 0
        if not is_inside(filesystem, f"{root}/{name}", root):
            continue  # a link elsewhere
        with filesystem.open_input_stream(f"{root}/{name}") as file:
            files[name] = bytes(file.read()) if size <= LARGEST_FILE else b""
    return Snapshot(session, files)


def read_copy(filesystem: pafs.FileSystem, root: str) -> Snapshot | None:
    """The copy that was kept, if there is a whole one."""
    path = f"{root}/{FOLDER}/{COPY}"
    info = filesystem.get_file_info(path)
    if info.type is not pafs.FileType.File or not is_inside(filesystem, path, root):
        return None
    if (info.size or 0) > LARGEST_FILE:
        return None
    try:
        with filesystem.open_input_stream(path) as file:
            packed = zipfile.ZipFile(io.BytesIO(file.read()))
        if any(each.compress_type != zipfile.ZIP_STORED for each in packed.infolist()):
            return None  # not written by us: it may grow without bounds
        files = {name: packed.read(name) for name in packed.namelist()}
    except (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile):
        return None
    named = {name: match["session"] for name in files if (match := _NAMED.fullmatch(name))}
    kept = Snapshot(max(named.values(), default=""), {name: files[name] for name in named})
    return kept if kept.state is not None and not kept.torn else None


class SnapshotKeeper:
    """Keeps the copy, from the driver's own files: `look` is to be called on Ray's thread.

    There the files are whole between two calls of Ray's. At most every five seconds, and for at
    most a twentieth of the driver's time. A disk that fails ends no sweep.
    """

    def __init__(self, storage: Any) -> None:
        self._staging = Path(storage.experiment_driver_staging_path)
        self._path = Path(storage.experiment_fs_path, FOLDER, COPY)
        local = isinstance(storage.storage_filesystem, pafs.LocalFileSystem)
        self._due = -float("inf") if local else float("inf")

    def look(self) -> None:
        """Copy Ray's newest snapshot if it has not been yet."""
        begin = time.monotonic()
        if begin < self._due:
            return
        with contextlib.suppress(OSError):
            self._keep()
        took = time.monotonic() - begin
        # nothing there yet: Ray's first snapshot comes soon
        waits = COPY_SECONDS if self._path in _KEPT else 0.1
        self._due = begin + max(waits, COPY_SHARE * took)

    def _keep(self) -> None:
        names = [name for name in os.listdir(self._staging) if _NAMED.fullmatch(name)]
        session = max((_session(n) for n in names if _family(n) == STATE), default=None)
        files = sorted(name for name in names if _session(name) == session)
        stamps = tuple((name, (self._staging / name).stat().st_mtime_ns) for name in files)
        if not files or _KEPT.get(self._path) == stamps:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path not in _KEPT:
            self._keep_tuner()
        part = self._path.with_name(f"{COPY}.tmp")
        with zipfile.ZipFile(part, "w") as packed:
            for name in files:
                packed.write(self._staging / name, name)
        os.replace(part, self._path)
        _KEPT[self._path] = stamps

    def _keep_tuner(self) -> None:
        """Copy what Ray wrote when this driver made its Tuner, once."""
        written, copy = self._path.parent.parent / TUNER, self._path.parent / TUNER
        if not written.is_file() or written.stat().st_size > LARGEST_TUNER:
            return
        data = written.read_bytes()
        if _is_pickle(data):
            part = copy.with_name(f"{TUNER}.tmp")
            part.write_bytes(data)
            os.replace(part, copy)


_KEPT: dict[Path, tuple[tuple[str, int], ...]] = {}  # what each copy was made of, by this process


def mend_snapshot(filesystem: pafs.FileSystem, root: str) -> bool:
    """See to it that Ray finds a whole snapshot to restore; False if it will begin anew.

    One warning says what was torn and what is used instead: our copy, else an older session's
    files, else what is left without a file that Ray can do without.
    """
    sessions = snapshots_in(filesystem, root)
    newest: dict[str, str] = {}  # Ray takes the newest of each family
    for names in sessions.values():
        newest |= {_family(name): name for name in names}
    torn = [name for name in newest.values() if not _is_whole_at(filesystem, root, name)]
    if not torn:
        return STATE in newest
    said = f"Ray's snapshot in {root} is torn ({', '.join(torn)}), as a kill leaves it"
    copy, older = read_copy(filesystem, root), _whole_before(filesystem, root, sessions)
    if copy is not None and (older is None or copy.session >= older.session):
        _set_aside(filesystem, root, _after(copy.session, sessions))
        for name, data in copy.files.items():
            put_whole(filesystem, f"{root}/{name}", data)
        used = "the copy that tune_stoppers kept is used"
    elif older is not None:
        _set_aside(filesystem, root, _after(older.session, sessions))
        used = f"the one of {older.session} is used"
    elif {_family(name) for name in torn} <= set(DISPENSABLE):
        _set_aside(filesystem, root, torn)
        used = "it is used without that: the trials in it continue" + (
            ", and those that were not made yet are never made"
            if any(_family(name) == VARIANTS for name in torn)
            else ""
        )
    else:
        logger.warning(
            "%s, and there is no whole one: Ray begins the sweep anew, with new trials. Those from "
            "before stay in the folder: best_states(..., generation=1) shows them.",
            said,
        )
        return False
    logger.warning("%s, and Ray would begin the sweep anew: %s.", said, used)
    return True


def newest_state(filesystem: pafs.FileSystem, root: str) -> tuple[str, bytes]:
    """The name and the content of the newest file that lists the trials; Ray reads this one."""
    for names in reversed(snapshots_in(filesystem, root).values()):
        for name in names:
            if _family(name) == STATE:
                with filesystem.open_input_stream(f"{root}/{name}") as file:
                    return name, bytes(file.read())
    raise FileNotFoundError(f"{root} has no snapshot of Ray's.")


def _whole_before(
    filesystem: pafs.FileSystem, root: str, sessions: Mapping[str, list[str]]
) -> Snapshot | None:
    """The newest session whose files are all whole."""
    for session in sorted(sessions, reverse=True):
        found = read_snapshot(filesystem, root, session, sessions[session])
        if found.state is not None and not found.torn:
            return found
    return None


def _after(session: str, sessions: Mapping[str, list[str]]) -> list[str]:
    """The names of the files of all later sessions."""
    return [name for later, names in sessions.items() if later > session for name in names]


def _is_whole_at(filesystem: pafs.FileSystem, root: str, name: str) -> bool:
    return not read_snapshot(filesystem, root, _session(name), [name]).torn


def _set_aside(filesystem: pafs.FileSystem, root: str, names: Iterable[str]) -> None:
    for name in names:
        filesystem.move(f"{root}/{name}", f"{root}/{name}{ASIDE}")


def _family(name: str) -> str:
    named = _NAMED.fullmatch(name)
    return named["family"] if named else ""


def _session(name: str) -> str:
    named = _NAMED.fullmatch(name)
    return named["session"] if named else ""
