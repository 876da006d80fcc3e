"""What was learnt of a large experiment, kept in the user's cache folder: reading one takes long.

One file of JSON for each experiment and objective, in `$XDG_CACHE_HOME` or `~/.cache`, replaced
when a file of the experiment has changed. Nothing is lost with it, and a disk that fails is no
error.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyarrow import fs

from tune_stoppers.codec import pack, unpack
from tune_stoppers.history.past_sweep import PastSweep
from tune_stoppers.journal.layout import FOLDER
from tune_stoppers.journal.lines import parsed

VERSION = 2  # of what is kept
FEWEST_FILES = 200  # an experiment with fewer is read in no time
LARGEST = 2**24  # bytes


class Cache:
    """The place of one experiment, and of what it was last learnt from."""

    def __init__(self, filesystem: fs.FileSystem, root: str, *asked: object) -> None:
        files = sorted(_files(filesystem, root))
        place = [filesystem.type_name, root, *asked]
        self._path = _folder() / f"{_hash(place)}.json"
        self._key = _hash([VERSION, files])
        self._used = len(files) >= FEWEST_FILES

    def read(self) -> PastSweep | None:
        """What is kept, if it is of the experiment as it is now."""
        if not self._used:
            return None
        try:
            if self._path.stat().st_size > LARGEST:
                return None
            kept = parsed(self._path.read_text(encoding="utf-8"))
            return unpack(kept["sweep"], PastSweep) if kept["key"] == self._key else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, sweep: PastSweep) -> None:
        """Keep it, whole or not at all."""
        if not self._used:
            return
        text = json.dumps({"key": self._key, "sweep": pack(sweep)})
        part = self._path.with_name(f"{uuid.uuid4().hex}.part")
        with contextlib.suppress(OSError):
            part.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                part.write_text(text, encoding="utf-8")
                os.replace(part, self._path)
            finally:
                part.unlink(missing_ok=True)


def _files(filesystem: fs.FileSystem, root: str) -> Iterator[tuple[str, int | None, int | None]]:
    """Whatever the sweep may be read from: the files in the folder and in those of its trials."""
    for info in filesystem.get_file_info(fs.FileSelector(root)):
        ours = posixpath.basename(info.path) == FOLDER
        inner = [info]
        if info.type is fs.FileType.Directory:
            inner = filesystem.get_file_info(fs.FileSelector(info.path, recursive=ours))
        for file in inner:
            if file.type is fs.FileType.File:
                yield file.path, file.size, file.mtime_ns


def _folder() -> Path:
    given = os.environ.get("XDG_CACHE_HOME", "")
    above = Path(given) if os.path.isabs(given) else Path("~/.cache").expanduser()
    return above / "tune_stoppers" / "history"


def _hash(data: Any) -> str:
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()
