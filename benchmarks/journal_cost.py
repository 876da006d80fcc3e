"""What a line of the journal costs: on the caller's thread, and in all.

python -m benchmarks.journal_cost

20,000 decisions of `Patience`, as a stopper writes them, on a local disk, on storage that is
written again in full, and on storage that takes 200 ms a write. "caller": CPU time of the thread
that decides; "process": of the whole process, the writing thread included; "99.9 %": that share of
lines kept their caller no longer than this, by the wall clock.
"""

import tempfile
import time
from functools import partial
from typing import Any

import fsspec  # type: ignore[import-untyped]
import pyarrow.fs as pafs

from tune_stoppers.core import Report
from tune_stoppers.journal.lines import line_of
from tune_stoppers.journal.recorder import Recorder
from tune_stoppers.report.terminal.tables import markdown
from tune_stoppers.rules import Patience

LINES, SLOW_SECONDS = 20_000, 0.2


class Slow(pafs.FSSpecHandler):
    """Storage in memory, whose every write takes a while."""

    def __init__(self, seconds: float) -> None:
        super().__init__(fsspec.filesystem("memory"))
        self.seconds = seconds

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        """A stream that comes late."""
        time.sleep(self.seconds)
        return super().open_output_stream(path, metadata)


def cost(filesystem: pafs.FileSystem, folder: str) -> tuple[float, float, float]:
    """Microseconds a line: on the caller's thread, in all, and what 99.9 % do not exceed."""
    rule, recorder = Patience(5), Recorder(filesystem, folder)
    state, decided = rule.init(), []
    for step in range(LINES):
        state, decision = rule.update(state, Report("t", step, 1 / (step + 1)))
        decided.append(decision)
    waits, caller, process = [], time.thread_time(), time.process_time()
    for step, decision in enumerate(decided):
        before = time.perf_counter()
        line = partial(line_of, "PatienceStopper", "t", step, 0.5, decision, now=time.time())
        recorder.write(line)
        waits.append(time.perf_counter() - before)
    caller = time.thread_time() - caller
    assert recorder.flush(120)
    process = time.process_time() - process
    return 1e6 * caller / LINES, 1e6 * process / LINES, 1e6 * sorted(waits)[-LINES // 1000]


def main() -> int:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        storages = {
            "local disk": pafs.LocalFileSystem(),
            "rewritten": pafs.PyFileSystem(Slow(0)),
            "200 ms a write": pafs.PyFileSystem(Slow(SLOW_SECONDS)),
        }
        rows = []
        for name, filesystem in storages.items():
            caller, process, wait = cost(filesystem, f"{folder}/{name}")
            rows.append([name, f"{caller:.1f}", f"{process:.1f}", f"{wait:.1f}"])
    header = ["storage", "caller, µs a line", "process, µs a line", "99.9 %, µs"]
    print(markdown(header, rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
