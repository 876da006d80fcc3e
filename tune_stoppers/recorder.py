"""A run's lines and states on the experiment's storage, written off the caller's thread.

Layout, in `<experiment>/tune_stoppers/<run>/`: `journal-<n>.jsonl` are the journal's segments, each
named by the number of its first line; `state-<g>.json` are the newest two generations of a state,
each with a checksum and the number of journal lines that it has taken in. The journal alone is
the truth: a state spares reading all of it again.
"""

import atexit
import contextlib
import hashlib
import json
import logging
import re
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow.fs as pafs

from tune_stoppers.journal import Line, as_text, parse_lines, plain

logger = logging.getLogger("tune_stoppers")

FORMAT = 1  # of a state file
GENERATIONS = 2  # states kept
BATCH_SECONDS = 0.05  # between two writes: what a kill may lose
RETRY_SECONDS = 2.0  # after a failed write
REQUEST_SECONDS = 1.0  # between two looks for requests
SEGMENT_LINES = {True: 50_000, False: 500}  # storage can append; or rewrites the whole segment
HELD_LINES = 100_000  # while the storage fails
LARGEST_STATE = 512 * 2**20  # bytes


class Remembered(NamedTuple):
    """What an earlier process of this run left behind."""

    state: Any  # None: no generation could be read, or none was written
    lines: list[Line]  # of the journal, since that state


class _Segment(NamedTuple):
    start: int  # number of its first line, from 1
    path: str


class Recorder:
    """Appends lines and replaces states; neither call waits for the storage.

    Args:
        filesystem, folder: where this run keeps its files; made when first needed.
        requests: a folder that is looked into for requests to stop trials, or None.

    `requested` maps trials to why a user wants them stopped. If the storage fails, one warning
    says so, lines are held (the newest 100,000) and tried again every 2 seconds.
    """

    def __init__(
        self, filesystem: pafs.FileSystem, folder: str, requests: str | None = None
    ) -> None:
        self.filesystem, self.folder, self._requests = filesystem, folder, requests
        self.requested: dict[str, str] = {}
        self._appends = isinstance(filesystem, pafs.LocalFileSystem)
        self._lines: list[Callable[[], Line]] = []
        self._state: Callable[[], Any] | None = None
        self._honoured: list[str] = []
        self._count = 0  # lines taken in, by this process and the ones before
        self._generation = 0
        self._segment: _Segment | None = None
        self._texts: list[str] = []  # of the open segment, where it is rewritten
        self._in_segment = 0
        self._failing = False
        self._wake, self._idle = threading.Event(), threading.Event()
        self._idle.set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    # -- the caller's side ---------------------------------------------------------------------

    def write(self, line: Callable[[], Line]) -> None:
        """Append the line that `line` makes; it is called later, on another thread."""
        with self._lock:
            self._lines.append(line)
            self._count += 1
            self._idle.clear()
        self._start()

    def save(self, state: Callable[[], Any]) -> None:
        """Replace the state: `state` makes JSON data that has taken in every line so far."""
        with self._lock:
            count = self._count
            self._state = lambda: {"lines": count, "state": state()}
            self._idle.clear()
        self._start()

    def honoured(self, trial_id: str) -> None:
        """The request to stop this trial has been met."""
        self.requested.pop(trial_id, None)
        self._honoured.append(trial_id)

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until all is written, at most `timeout` seconds; whether it is."""
        self._wake.set()
        return self._idle.wait(RETRY_SECONDS if self._failing else timeout)

    def watch(self) -> None:
        """Look for requests from now on, also while nothing is written."""
        self._start()

    def read(self) -> Remembered:
        """The newest state that can be read and the lines since; call it before any write."""
        found = {info.base_name: info.path for info in self._list()}
        body = self._newest_state(found)
        after = 0 if body is None else body["lines"]
        lines, self._count = self._lines_after(found, after)
        return Remembered(None if body is None else body["state"], lines)

    def go_on(self) -> bool:
        """Number lines on from where an earlier process ended; whether there was one."""
        segments = self._segments({info.base_name: info.path for info in self._list()})
        if segments:
            start, path = segments[-1]
            self._count = start - 1 + len(self._read_lines(path))
        return bool(segments)

    # -- reading -------------------------------------------------------------------------------

    def _list(self) -> list[pafs.FileInfo]:
        selector = pafs.FileSelector(self.folder, allow_not_found=True)
        return [i for i in self.filesystem.get_file_info(selector) if i.type == pafs.FileType.File]

    def _newest_state(self, found: dict[str, str]) -> dict[str, Any] | None:
        names = sorted(n for n in found if re.fullmatch(r"state-\d+\.json", n))
        for name in reversed(names):
            self._generation = max(self._generation, int(name[6:-5]))
            try:
                return read_state(self.filesystem, found[name])
            except (OSError, ValueError) as error:
                logger.warning("%s; what was written before it is used.", error)
        return None

    def _lines_after(self, found: dict[str, str], after: int) -> tuple[list[Line], int]:
        """The lines numbered above `after`, and the number of the last."""
        segments = self._segments(found)
        numbered: dict[int, Line] = {}
        for position, (start, path) in enumerate(segments):
            following = segments[position + 1].start if position + 1 < len(segments) else None
            if following is None or following > after + 1:
                numbered |= {start + i: line for i, line in enumerate(self._read_lines(path))}
        kept = sorted(number for number in numbered if number > after)
        return [numbered[number] for number in kept], max([after, *numbered])

    def _segments(self, found: dict[str, str]) -> list[_Segment]:
        """The journal's, in order."""
        return sorted(
            _Segment(int(name[8:-6]), path)
            for name, path in found.items()
            if re.fullmatch(r"journal-\d+\.jsonl", name)
        )

    def _read_lines(self, path: str) -> list[Line]:
        with self.filesystem.open_input_stream(path) as file:
            return parse_lines(file.read().decode("utf-8", "replace"), path)

    # -- the writing thread --------------------------------------------------------------------

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=_serve, args=(weakref.ref(self),), name="tune_stoppers", daemon=True
            )
            self._thread.start()
            atexit.register(_flush, weakref.ref(self))
        self._wake.set()

    def _work(self) -> None:
        """Write what is waiting; on a failure keep it for the next time."""
        with self._lock:
            lines, self._lines = self._lines, []
            state, self._state = self._state, None
            first = self._count - len(lines) + 1
        try:
            if lines or state:
                self.filesystem.create_dir(self.folder, recursive=True)
            if lines:
                self._append([as_text(line()) for line in lines], first)
            if state:
                self._replace(state())
            self._failing = False
        except OSError as error:
            self._hold(lines, state, error)
            return
        with self._lock:
            if not self._lines and self._state is None:
                self._idle.set()

    def _hold(self, lines: list[Any], state: Any, error: OSError) -> None:
        if not self._failing:
            logger.warning(
                "%s cannot be written (%s). The sweep goes on; its lines are held in memory and "
                "tried again: free or mend the storage.",
                *(self.folder, error),
            )
        self._failing = True
        self._segment = None  # it may hold part of what failed: the next one takes its place
        with self._lock:
            self._lines = [*lines, *self._lines][-HELD_LINES:]
            self._state = self._state or state

    def _append(self, texts: list[str], first: int) -> None:
        if self._segment is None or self._in_segment >= SEGMENT_LINES[self._appends]:
            self._segment = _Segment(first, f"{self.folder}/journal-{first:012d}.jsonl")
            self._texts, self._in_segment = [], 0
        if self._appends:
            mode = "a" if self._in_segment else "w"
            with open(self._segment.path, mode, encoding="utf-8") as file:
                file.write("".join(texts))
        else:
            with self.filesystem.open_output_stream(self._segment.path) as file:
                file.write("".join([*self._texts, *texts]).encode())
            self._texts += texts
        self._in_segment += len(texts)

    def _replace(self, body: dict[str, Any]) -> None:
        path = f"{self.folder}/state-{self._generation + 1:06d}.json"
        with self.filesystem.open_output_stream(path + ".tmp") as file:
            file.write(state_text(body).encode())
        self.filesystem.move(path + ".tmp", path)
        self._generation += 1
        old = f"{self.folder}/state-{self._generation - GENERATIONS:06d}.json"
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(old)

    def _look_for_requests(self) -> None:
        if self._requests is None:
            return
        with contextlib.suppress(OSError):  # the next look will see it
            while self._honoured:
                self.filesystem.delete_file(f"{self._requests}/{self._honoured.pop()}.json")
        with contextlib.suppress(OSError):
            self.requested.update(read_requests(self.filesystem, self._requests))


def _serve(recorder_of: "weakref.ref[Recorder]") -> None:
    """Write for a recorder until it is gone."""
    looked = 0.0
    while (recorder := recorder_of()) is not None:
        wake, pause = recorder._wake, BATCH_SECONDS
        recorder._work()
        if recorder._failing:
            pause = RETRY_SECONDS
        elif time.monotonic() - looked > REQUEST_SECONDS:
            recorder._look_for_requests()
            looked = time.monotonic()
        del recorder
        time.sleep(pause)  # lines that come meanwhile are written together
        wake.wait(REQUEST_SECONDS)
        wake.clear()


def _flush(recorder_of: "weakref.ref[Recorder]") -> None:
    recorder = recorder_of()
    if recorder is not None:
        recorder.flush()


def state_text(body: dict[str, Any]) -> str:
    """A state file: its format, the checksum of its body, and the body."""
    text = json.dumps(plain(body), separators=(",", ":"), allow_nan=False)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f'{{"format":{FORMAT},"sha256":"{digest}","body":{text}}}\n'


def read_state(filesystem: pafs.FileSystem, path: str) -> dict[str, Any]:
    """The body of a state file. `ValueError` says which file is torn, foreign or too new."""
    size = filesystem.get_file_info(path).size or 0
    if size > LARGEST_STATE:
        raise ValueError(f"{path} is no state of tune_stoppers: it has {size} bytes")
    with filesystem.open_input_stream(path) as file:
        text = file.read().decode("utf-8", "replace")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is torn or no state of tune_stoppers") from None
    if not isinstance(data, dict) or not isinstance(data.get("format"), int):
        raise ValueError(f"{path} is no state of tune_stoppers")
    if data["format"] > FORMAT:
        raise ValueError(f"{path} is of format {data['format']}, this version reads {FORMAT}")
    body = data.get("body")
    if not isinstance(body, dict) or state_text(body).split('"', 6)[5] != data.get("sha256"):
        raise ValueError(f"{path} is damaged: its checksum is wrong")
    return body


def request_text(why: str) -> str:
    """What a request to stop a trial says."""
    return json.dumps({"why": why, "time": round(time.time(), 3)}) + "\n"


def read_requests(filesystem: pafs.FileSystem, folder: str) -> dict[str, str]:
    """Trials that a user wants stopped, and why; files that say nothing sensible are left out."""
    found = {}
    selector = pafs.FileSelector(folder, allow_not_found=True)
    for info in filesystem.get_file_info(selector):
        if not info.base_name.endswith(".json") or (info.size or 0) > 10_000:
            continue
        with filesystem.open_input_stream(info.path) as file:
            try:
                data = json.loads(file.read())
            except (ValueError, RecursionError):
                continue
        if isinstance(data, dict):
            found[info.base_name[:-5]] = str(data.get("why", ""))
    return found
