"""The journals of a running sweep, followed: each line once, soon after it was written."""

from typing import NamedTuple

import pyarrow.fs as pafs

from tune_stoppers.experiment.journals import is_sound
from tune_stoppers.experiment.paths import is_inside
from tune_stoppers.journal.layout import FOLDER, LARGEST_FILE, RUN, segments_of
from tune_stoppers.journal.lines import Line, numbered_lines
from tune_stoppers.metrics import logger, number


class Followed(NamedTuple):
    """A line, and the run that wrote it."""

    run: str  # the name of its folder
    line: Line


class _Place(NamedTuple):
    """How far a segment has been read."""

    offset: int = 0  # bytes
    rows: int = 0


class Follower:
    """Reads what the journals in an experiment's folder have gained since the last time.

    Storage that cannot append has its segments written anew, each beginning as before. A segment
    that was begun again after a failed write may repeat lines: a number is told once. A line
    counts once its end is there.
    """

    def __init__(self, filesystem: pafs.FileSystem, root: str) -> None:
        self.filesystem, self.root = filesystem, root
        self._places: dict[str, _Place] = {}  # by path of the segment
        self._told: dict[str, int] = {}  # the last number of each run

    def new(self) -> list[Followed]:
        """The lines of the newest birth's runs that have not been told yet, oldest first."""
        selector = pafs.FileSelector(f"{self.root}/{FOLDER}", allow_not_found=True)
        named = [
            (match["birth"], info)
            for info in self.filesystem.get_file_info(selector)
            if info.type is pafs.FileType.Directory and (match := RUN.fullmatch(info.base_name))
        ]
        newest = max((birth for birth, _ in named), default="")
        found = [
            Followed(info.base_name, {"owner": RUN.fullmatch(info.base_name)["owner"]} | line)  # type: ignore[index]  # it has matched
            for birth, info in named
            if birth == newest
            for line in self._of_run(info.path)
        ]
        return sorted(found, key=lambda one: number(one.line.get("time")) or 0.0)

    def _of_run(self, folder: str) -> list[Line]:
        lines = []
        for start, path in segments_of(self.filesystem, folder):
            place = self._places.get(path, _Place())
            size = self.filesystem.get_file_info(path).size or 0
            if size <= place.offset or not self._is_ours(path, size):
                continue
            text = self._after(path, place.offset)
            whole = text[: text.rfind(b"\n") + 1]
            self._places[path] = _Place(place.offset + len(whole), place.rows + whole.count(b"\n"))
            for row, line in numbered_lines(whole.decode("utf-8", "replace"), path):
                at = start + place.rows + row - 1
                if at > self._told.get(folder, 0) and is_sound(line):
                    self._told[folder] = at
                    lines.append(line)
        return lines

    def _is_ours(self, path: str, size: int) -> bool:
        ours = size <= LARGEST_FILE and is_inside(self.filesystem, path, self.root)
        if not ours and path not in self._places:
            logger.warning("%s is too large, or leads out of the folder: left out.", path)
            self._places[path] = _Place()
        return ours

    def _after(self, path: str, offset: int) -> bytes:
        with self.filesystem.open_input_file(path) as file:
            file.seek(offset)
            return bytes(file.read())
