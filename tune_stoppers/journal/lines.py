"""Decisions on disk: one JSON line each, appended as they are taken, and how to read them.

Keys of a line: `time` (seconds since the epoch), `trial`, `step`, `value` (of the metric, in the
user's units), `action`, `rule`, `reason`, `numbers` (those compared, losses in loss units),
`owner` (the stopper or scheduler) and, where they apply, `event` ("rewind", "out of order"),
`dry_run`, `ends_sweep`, `checkpoint` (the name of its folder) and `clocks` (Ray's, there). The
events `trial` and `config` have the `values` of the configuration, unless they are very many.
Values that are not finite are the strings "nan", "inf" and "-inf".
"""

import contextlib
import errno
import json
import logging
import math
import os
import re
import time
from collections import deque
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

from tune_stoppers.core import Action, Decision

logger = logging.getLogger("tune_stoppers")

Line = dict[str, Any]

# events: what a line that judges no report is about
BEGINS, RESTORED = "begins", "restored"  # a process of the run starts
TRIAL, CONFIG = "trial", "config"  # a trial was added; it continues with another configuration
ENDED, LOST = "ended", "lost"  # a trial; LOST: its process died, or it was dropped
AGAIN = "saved again"  # a restored trial repeats a report, with a checkpoint; its name and step
RESUMED = "resumed"  # a paused trial was chosen to run on
STARTED = "started"  # a trial that a scheduler had held back was chosen to run
SAVING = "saving"  # a report of a class trainable: the name that its checkpoint has, if Ray saves
UNJUDGED = "ended unjudged"  # a trial that ended with nothing that could be judged
FORGOT = "forgot"  # trials that a restored sweep does not have
OVER = "over"  # the search
GIVEN_UP = "given up"  # a paused trial: it is not continued
USER = "user"  # who asked for a trial to be stopped, instead of a rule
STOPPER = "stopper"  # who wrote the line, in `by` of the first one: trials have sessions
WORDS = ("rule", "reason", "numbers", "owner")  # what a line may go without
HELD_LINES = 100_000  # while a disk fails
LONGEST_LINE = 2**24  # characters; of a result with 100,000 metrics it is 5 million
DEEPEST = 100  # brackets within brackets
NAMED = 5  # torn lines of a file that are named one by one
HALF_A_PAIR = re.compile(r"\\u[dD][89a-fA-F]")  # of surrogates, perhaps: no text file can hold one


def line_of(
    owner: str,
    trial: str,
    step: float,
    value: float | None,
    decision: Decision,
    *,
    sign: int = 1,
    event: str | None = None,
    dry_run: bool = False,
    now: float | None = None,
    **seen: Any,
) -> Line:
    """A decision as a line of the journal; `seen` is what else was seen of the report."""
    line: Line = {
        "time": round(time.time() if now is None else now, 3),
        "trial": trial,
        "step": step,
        "value": value,
        "action": decision.action.value,
        "rule": decision.rule,
        "reason": decision.say(sign),
        "numbers": decision.plain_numbers(),
        "owner": owner,
    }
    flags = {"event": event, "dry_run": dry_run, "ends_sweep": decision.ends_sweep}
    return line | {name: flag for name, flag in (flags | seen).items() if flag}


def event_line(owner: str, trial: str, event: str, **more: Any) -> Line:
    """Something that happened to a trial, or (trial "") to the sweep, as a line of the journal."""
    return {"time": round(time.time(), 3), "trial": trial, "event": event, "owner": owner} | more


def thinned(line: Line) -> Line:
    """A decision to continue without its words and numbers; every other line as it is.

    What is left is what the rule saw and what it decided: the rule can be run over it again.
    """
    if line.get("action") != Action.CONTINUE.value:
        return line
    return {key: value for key, value in line.items() if key not in WORDS}


def asks_to_stop(line: Line) -> bool:
    """Whether the line is a decision to stop that was taken: no dry run, and not too early."""
    stops = line.get("action") == Action.STOP.value
    return stops and not line.get("dry_run") and not line.get("early")


def asked(why: str) -> str:
    """The reason of a trial that a user wants stopped."""
    return f"{USER}: {why or 'no reason given'}"


def as_text(line: Line) -> str:
    """A line as it is written, with its end."""
    return json.dumps(plain(line), ensure_ascii=False, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """`value` with floats that JSON lacks as strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


class Journal:
    """Appends lines to a local file; it may be pickled, and a copy continues where it ended.

    A file that cannot be opened at first is an error: the journal was asked for. A disk that fails
    later ends no sweep: one warning says so, lines are held (the newest 100,000) and written with
    the next line that can be, or when the journal is closed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser().absolute()
        self._file: FileIO | None = None
        self._begin()

    def _begin(self) -> None:
        self._held: deque[bytes] = deque(maxlen=HELD_LINES)
        self._begun = self._failing = False

    def write(self, line: Line) -> None:
        """Append `line`; a crash right after loses nothing that was written."""
        self._held.append(as_text(line).encode())
        try:
            self._write_held()
        except OSError as error:
            self._drop_file()
            if not self._begun:
                raise
            if not self._failing:
                told = "%s cannot be written (%s). Its lines are held in memory: free the disk."
                logger.warning(told, self.path, error)
            self._failing = True

    def close(self) -> None:
        """Close the file; a later `write` opens it again."""
        if self._held and self._begun:
            with contextlib.suppress(OSError):
                self._write_held()
            if self._held:
                logger.warning("%s: %d lines are lost.", self.path, len(self._held))
        self._drop_file()

    def _write_held(self) -> None:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)  # what is not on disk is held here
            if _is_torn(self.path):
                self._file.write(b"\n")  # what a crash cut off keeps to its own line
        while self._held:
            if self._file.write(self._held[0]) < len(self._held[0]):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._held.popleft()
            self._begun, self._failing = True, False

    def _drop_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_file": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()


def _is_torn(path: Path) -> bool:
    """Whether the last line of `path` lacks its end."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def read_journal(path: str | os.PathLike[str]) -> list[Line]:
    """The lines of a journal file, in order. Lines cut off by a crash are left out, with a note."""
    return parse_lines(Path(path).read_text(encoding="utf-8", errors="replace"), path)


def parse_lines(text: str, path: str | os.PathLike[str]) -> list[Line]:
    """The whole lines in the `text` of the file `path`."""
    return [line for _, line in numbered_lines(text, path)]


def numbered_lines(text: str, path: str | os.PathLike[str]) -> Iterator[tuple[int, Line]]:
    """The whole lines in the `text` of the file `path`, with their rows, from 1."""
    torn = 0
    for row, cells in enumerate(_cut(text), start=1):
        if not cells:
            continue
        try:
            line = parsed(cells) if len(cells) <= LONGEST_LINE else None
        except ValueError:
            line = None
        if isinstance(line, dict):
            yield row, line
            continue
        torn += 1
        if torn <= NAMED:
            logger.warning("%s: line %d is torn and is left out.", path, row)
    if torn > NAMED:
        logger.warning("%s: %d lines are torn and are left out.", path, torn)


def parsed(text: str) -> Any:
    """The data in a JSON text; `ValueError` if it is none, or nested more than 100 deep.

    So that whoever goes through the data, or writes it into a page, meets nothing odd: half a
    surrogate pair becomes a question mark.
    """
    try:
        data = json.loads(text)
    except RecursionError:
        raise ValueError(f"nested more than {DEEPEST} deep") from None
    if text.count("[") + text.count("{") > DEEPEST:
        _check_depth(data)
    if HALF_A_PAIR.search(text):
        data = json.loads(json.dumps(data, ensure_ascii=False).encode("utf-8", "replace"))
    return data


def _check_depth(data: Any) -> None:
    level = [data]
    for _ in range(DEEPEST):
        inner = (each.values() if isinstance(each, dict) else each for each in level)
        level = [item for items in inner for item in items if isinstance(item, (dict, list))]
        if not level:
            return
    raise ValueError(f"nested more than {DEEPEST} deep")


def _cut(text: str) -> Iterator[str]:
    """The lines of `text`, one at a time: a file of nothing but ends of lines has many."""
    begin = 0
    while (end := text.find("\n", begin)) >= 0:
        yield text[begin:end]
        begin = end + 1
    yield text[begin:]
