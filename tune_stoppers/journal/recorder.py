"""A run's lines and states on the experiment's storage, written off the caller's thread.

`journal.layout` says which files. The journal alone is the truth: a state spares reading all of it
again.

A write that failed half-way is made again as a new segment, so that segments may overlap: a line is
known by its number, which is its segment's plus its row, and the newest segment has the say.

Over 350 lines, as both sides of its one lock belong in one file.
"""

import atexit
import contextlib
import logging
import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow.fs as pafs

from tune_stoppers.journal.layout import (
    STATE,
    Segment,
    files_of,
    put_whole,
    read_lines,
    read_requests,
    read_state,
    segment_path,
    segments_of,
    state_path,
    state_text,
)
from tune_stoppers.journal.lines import Line, as_text, event_line, thinned

logger = logging.getLogger("tune_stoppers")

GENERATIONS = 2  # states kept
# storage that can append, and storage where the whole segment is written again
BATCH_SECONDS = {True: 0.05, False: 1.0}  # between two writes: what a kill may lose
REQUEST_SECONDS = {True: 1.0, False: 5.0}  # between two looks for requests
SEGMENT_LINES = {True: 50_000, False: 500}
RETRY_SECONDS = 2.0  # after a failed write
HELD_LINES = 100_000  # while the storage fails
FULL_LINES = 50_000  # of a process; after these, decisions to continue are thinned


class Remembered(NamedTuple):
    """What an earlier process of this run left behind."""

    state: Any  # None: no generation could be read, or none was written
    lines: list[Line]  # of the journal, since that state


class Recorder:
    """Appends lines and replaces states; neither call waits for the storage.

    Args:
        filesystem, folder: where this run keeps its files; made when first needed.
        requests: a folder that is looked into for requests to stop trials, or None.

    `requested` maps trials to why a user wants them stopped. If the storage fails, one warning
    says so, lines are held (the newest 100,000) and tried again every 2 seconds. After 50,000
    lines of a process, decisions to continue are thinned as `journal.lines.thinned` says. What is
    still to be written when the recorder is dropped, or the process ends, is written then.
    """

    def __init__(
        self, filesystem: pafs.FileSystem, folder: str, requests: str | None = None
    ) -> None:
        self.filesystem, self.folder, self._requests = filesystem, folder, requests
        self.requested: dict[str, str] = {}
        self._appends = isinstance(filesystem, pafs.LocalFileSystem)
        self._lock = threading.Lock()  # of `requested` and the next five
        self._lines: deque[Callable[[], Line]] = deque(maxlen=HELD_LINES)
        self._count = 0  # lines taken in by this process
        self._state: tuple[int, Callable[[], Any]] | None = None  # with the lines it has taken in
        self._honoured: set[str] = set()
        self._idle = threading.Event()
        self._anchor: list[Recorder] = []  # this recorder, while it has something to write
        self._idle.set()
        self._wake, self._hurry = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        # the writing thread's own
        self._before: int | None = None  # number of the last line of earlier processes
        self._texts: deque[bytes] = deque(maxlen=HELD_LINES)  # to be written
        self._made = 0  # lines of this process made into texts, or lost
        self._lost = 0  # while the storage failed
        self._generation = 0
        self._segment: Segment | None = None
        self._in_segment = 0  # lines
        self._segment_texts: list[bytes] = []  # those, where the segment is written again
        self._failing = False

    # -- the caller's side ---------------------------------------------------------------------

    def write(self, line: Callable[[], Line]) -> None:
        """Append the line that `line` makes; it is called later, on another thread."""
        with self._lock:
            self._lines.append(line)
            self._count += 1
            self._anchored()
        self._start()

    def save(self, state: Callable[[], Any]) -> None:
        """Replace the state: `state` makes JSON data that has taken in every line so far."""
        with self._lock:
            self._state = self._count, state
            self._anchored()
        self._start()

    def honoured(self, trial_id: str) -> None:
        """The request to stop this trial has been met."""
        with self._lock:
            self.requested.pop(trial_id, None)
            self._honoured.add(trial_id)

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until all is written, at most `timeout` seconds; whether it is.

        A storage that fails is tried once more, and not waited for.
        """
        self._hurry.set()
        self._wake.set()
        deadline = time.monotonic() + timeout
        while not self._idle.wait(min(RETRY_SECONDS, max(deadline - time.monotonic(), 0))):
            if self._failing or time.monotonic() >= deadline:
                return False
        return True

    @property
    def failing(self) -> bool:
        """Whether the storage failed at the last try."""
        return self._failing

    def watch(self) -> None:
        """Look for requests from now on, also while nothing is written."""
        self._start()

    def read(self, accepts: Callable[[Any], bool] = lambda state: True) -> Remembered:
        """The newest state that can be read, and the lines since; call it before any write.

        A state that `accepts` refuses counts as unreadable.
        """
        self._flush_earlier()
        body = self._newest_state(accepts)
        after = 0 if body is None else body["lines"]
        numbered = read_lines(self.filesystem, segments_of(self.filesystem, self.folder), after)
        self._before = max([after, *numbered])
        lines = [numbered[number] for number in sorted(numbered)]
        return Remembered(None if body is None else body["state"], lines)

    def has_twin(self) -> bool:
        """Whether the same owner wrote in this experiment's folder before it was born again."""
        top, _, name = self.folder.rpartition("/")
        own = name.rpartition("-")[2]
        selector = pafs.FileSelector(top, allow_not_found=True)
        names = [info.base_name for info in self.filesystem.get_file_info(selector)]
        return any(each != name and each.rpartition("-")[2] == own for each in names)

    def newest(self, wanted: Callable[[Line], bool]) -> Line | None:
        """The newest written line that is `wanted`; what was written long ago is read last."""
        for segment in reversed(segments_of(self.filesystem, self.folder)):
            lines = read_lines(self.filesystem, [segment])
            for number in sorted(lines, reverse=True):
                if wanted(lines[number]):
                    return lines[number]
        return None

    def go_on(self) -> bool:
        """Number lines on from where an earlier process ended; whether there was one.

        If the storage fails, that is not known yet, and looked up before the first write.
        """
        self._flush_earlier()
        try:
            self._before = self._last_number()
        except OSError as error:
            logger.warning("%s cannot be read (%s).", self.folder, error)
            return False
        return self._before > 0

    # -- reading -------------------------------------------------------------------------------

    def _flush_earlier(self) -> None:
        """A sweep that broke in this process may still be writing in the same folder."""
        for recorder in list(_LIVE):
            if recorder is not self and recorder.folder == self.folder:
                recorder.flush()

    def _newest_state(self, accepts: Callable[[Any], bool]) -> dict[str, Any] | None:
        found = files_of(self.filesystem, self.folder, STATE)
        self._generation = max(found, default=0)
        for number in sorted(found, reverse=True):
            try:
                body = read_state(self.filesystem, found[number])
            except (OSError, ValueError) as error:
                logger.warning("%s; what was written before it is used.", error)
                continue
            if accepts(body["state"]):
                return body
        return None

    def _last_number(self) -> int:
        segments = segments_of(self.filesystem, self.folder)[-1:]
        before = [segment.start - 1 for segment in segments]
        return max([0, *before, *read_lines(self.filesystem, segments)])

    # -- the writing thread --------------------------------------------------------------------

    def _anchored(self) -> None:
        """There is something to write: live until it is written. Called under the lock."""
        if not self._anchor:
            self._anchor.append(self)
            self._idle.clear()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=_serve,
                args=(weakref.ref(self), self._anchor),
                name="tune_stoppers",
                daemon=True,
            )
            _LIVE.add(self)
            self._thread.start()
        self._wake.set()

    def _work(self) -> None:
        """Write what is waiting; on a failure keep it for the next time."""
        with self._lock:
            lines, state, count = list(self._lines), self._state, self._count
            self._lines.clear()
            self._state = None
        self._take(lines, count)
        try:
            if self._texts or state:
                self.filesystem.create_dir(self.folder, recursive=True)
                if self._before is None:
                    self._before = self._last_number()
                self._append(self._before + self._made - len(self._texts) + 1)
                if state:
                    self._replace(self._before + state[0], state[1])
        except Exception as error:  # any library may be behind a filesystem
            self._hold(state, error)
            return
        if self._lost:
            logger.warning("%s: %d lines could not be held and are lost.", self.folder, self._lost)
        self._failing, self._lost = False, 0
        with self._lock:
            if not self._lines and self._state is None:
                self._anchor.clear()
                self._idle.set()

    def _take(self, lines: list[Callable[[], Line]], count: int) -> None:
        """Make texts of `lines`, the newest of the `count` so far."""
        self._lost += max(len(self._texts) + count - self._made - HELD_LINES, 0)
        self._made = count - len(lines)
        for line in lines:
            self._made += 1
            self._texts.append(_text(line, self._made > FULL_LINES, self.folder))

    def _hold(self, state: tuple[int, Callable[[], Any]] | None, error: Exception) -> None:
        if not self._failing:
            logger.warning(
                "%s cannot be written (%s). The sweep continues; its lines are held in memory and "
                "tried again: free or mend the storage.",
                *(self.folder, error or type(error).__name__),
            )
        self._failing = True
        with self._lock:
            self._state = self._state or state

    def _append(self, first: int) -> None:
        """Write the texts that wait, the first of which is the journal's line `first`."""
        if not self._texts:
            return
        texts, segment = list(self._texts), self._segment_for(first)
        self._segment = None  # until it is written: what failed half-way is made again as a new one
        if self._appends:
            with open(segment.path, "ab" if self._in_segment else "wb") as file:
                file.write(b"".join(texts))
        else:
            self._segment_texts += texts
            put_whole(self.filesystem, segment.path, b"".join(self._segment_texts))
        self._segment = segment
        self._in_segment += len(texts)
        self._texts.clear()

    def _segment_for(self, first: int) -> Segment:
        if self._segment is None or self._in_segment >= SEGMENT_LINES[self._appends]:
            self._segment_texts, self._in_segment = [], 0
            return Segment(first, segment_path(self.folder, first))
        return self._segment

    def _replace(self, lines: int, state: Callable[[], Any]) -> None:
        try:
            text = state_text({"lines": lines, "state": state()}).encode()
        except (TypeError, ValueError) as error:
            logger.warning("%s: a state cannot be written as JSON (%s).", self.folder, error)
            return
        if not self._generation:
            self._generation = max(files_of(self.filesystem, self.folder, STATE), default=0)
        put_whole(self.filesystem, state_path(self.folder, self._generation + 1), text)
        self._generation += 1
        old = state_path(self.folder, self._generation - GENERATIONS)
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(old)

    def _look_for_requests(self) -> None:
        if self._requests is None:
            return
        with contextlib.suppress(OSError):  # the next look will see it
            for trial_id in list(self._honoured):
                with contextlib.suppress(FileNotFoundError):  # somebody else has met it too
                    self.filesystem.delete_file(f"{self._requests}/{trial_id}.json")
                self._honoured.discard(trial_id)
            found = read_requests(self.filesystem, self._requests)
            with self._lock:
                asked = {t: why for t, why in found.items() if t not in self._honoured}
                self.requested.update(asked)


def _serve(recorder_of: "weakref.ref[Recorder]", anchor: list[Recorder]) -> None:
    """Write for a recorder until it is gone; while something is to be written, `anchor` has it."""
    looked = -math.inf
    while (recorder := recorder_of()) is not None:
        wake, hurry, appends = recorder._wake, recorder._hurry, recorder._appends
        recorder._work()
        failing = recorder._failing
        if not failing and time.monotonic() - looked > REQUEST_SECONDS[appends]:
            recorder._look_for_requests()
            looked = time.monotonic()
        del recorder
        hurry.wait(RETRY_SECONDS if failing else BATCH_SECONDS[appends])  # lines gather meanwhile
        hurry.clear()
        if not failing:
            wake.wait(REQUEST_SECONDS[appends])
        wake.clear()


_LIVE: "weakref.WeakSet[Recorder]" = weakref.WeakSet()


@atexit.register
def flush_all(root: str = "") -> None:
    """Write what this process's recorders hold; each is waited for at most 10 seconds.

    Those outside of the folder `root` only where their storage does not fail: who reads one
    experiment does not wait for the broken storage of another.
    """
    for recorder in list(_LIVE):
        if recorder.failing and root and not recorder.folder.startswith(f"{root}/"):
            continue
        if not recorder.flush():
            logger.warning(
                "%s: the newest lines are not written, and lost if this process ends now.",
                recorder.folder,
            )


def _text(line: Callable[[], Line], thin: bool, folder: str) -> bytes:
    """A line as it is written; one that cannot be is replaced, as the next keep their numbers."""
    try:
        made = line()
        return as_text(thinned(made) if thin else made).encode()
    except Exception as error:  # a rule of a user's own may say anything
        logger.warning("%s: a line cannot be written (%r).", folder, error)
        return as_text(event_line("", "", "unwritable", reason=repr(error))).encode(
            "ascii", "replace"
        )
