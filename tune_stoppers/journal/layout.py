"""Where the journal's files lie in an experiment's folder, what they are called, and reading them.

Layout: `<experiment>/tune_stoppers/<birth>-<owner>-<uid>/` is the folder of a run: one stopper or
scheduler that watched the experiment born at `birth`. In it `journal-<n>.jsonl` are the journal's
segments, each named by the number of its first line, and `state-<g>.json` the newest two
generations of a state, each with a checksum and the number of journal lines that it has taken in.
`<experiment>/tune_stoppers/requests/<trial>.json` asks for a trial to be stopped.

At the top of the experiment's folder Ray would overwrite such files with its own older copies.
"""

import hashlib
import json
import re
import time
from typing import Any, NamedTuple

import pyarrow.fs as pafs

from tune_stoppers.journal.lines import Line, numbered_lines, parsed, plain

FOLDER = "tune_stoppers"  # in the experiment's folder
REQUESTS = "requests"  # in FOLDER
RUN = re.compile(r"(?P<birth>.+)-(?P<owner>\w+)-(?P<uid>[0-9a-f]{8})")  # a folder in FOLDER
STATE, JOURNAL = r"state-(\d+)\.json", r"journal-(\d+)\.jsonl"
FORMAT = 1  # of a state file
LARGEST_FILE = 512 * 2**20  # bytes
WHOLE_OR_NOT_AT_ALL = ("s3", "gcs", "abfs")  # storage that shows no file half written


def run_folder(experiment: str, birth: str, owner: str, uid: str) -> str:
    """The folder of a run in the experiment's folder; `RUN` reads its name."""
    name = re.sub(r"[^\w.-]", "_", f"{birth}-{owner}-{uid[:8]}")
    return f"{experiment}/{FOLDER}/{name}"


def requests_folder(experiment: str) -> str:
    """The folder for requests to stop trials."""
    return f"{experiment}/{FOLDER}/{REQUESTS}"


def segment_path(folder: str, first: int) -> str:
    """The segment of a run whose first line is the journal's line `first`."""
    return f"{folder}/journal-{first:012d}.jsonl"


def state_path(folder: str, generation: int) -> str:
    """The state of a run of this generation."""
    return f"{folder}/state-{generation:06d}.json"


class Segment(NamedTuple):
    """A file of the journal."""

    start: int  # number of its first line, from 1
    path: str


def files_of(filesystem: pafs.FileSystem, folder: str, pattern: str) -> dict[int, str]:
    """The files in `folder` with such a name, by the number in it."""
    selector = pafs.FileSelector(folder, allow_not_found=True)
    found = {}
    for info in filesystem.get_file_info(selector):
        match = re.fullmatch(pattern, info.base_name)
        if match and info.type == pafs.FileType.File:
            found[int(match[1])] = info.path
    return found


def put_whole(filesystem: pafs.FileSystem, path: str, data: bytes) -> None:
    """Write a whole file, which is there in full or not at all."""
    safe = filesystem.type_name in WHOLE_OR_NOT_AT_ALL
    with filesystem.open_output_stream(path if safe else path + ".tmp") as file:
        file.write(data)
    if not safe:
        filesystem.move(path + ".tmp", path)


def segments_of(filesystem: pafs.FileSystem, folder: str) -> list[Segment]:
    """The segments of the journal in `folder`, in order."""
    return [Segment(*item) for item in sorted(files_of(filesystem, folder, JOURNAL).items())]


def read_lines(
    filesystem: pafs.FileSystem, segments: list[Segment], after: int = 0
) -> dict[int, Line]:
    """The lines numbered above `after`, by their numbers; torn ones are left out, with a note.

    `ValueError` if a segment is too large to be one.
    """
    lines: dict[int, Line] = {}
    for index, (start, path) in enumerate(segments):
        if index + 1 < len(segments) and segments[index + 1].start <= after + 1:
            continue
        text = _read(filesystem, path, "segment of a journal")
        for row, line in numbered_lines(text, path):
            if start + row - 1 > after:
                lines[start + row - 1] = line
    return lines


def _read(filesystem: pafs.FileSystem, path: str, what: str) -> str:
    size = filesystem.get_file_info(path).size or 0
    if size > LARGEST_FILE:
        over = f"above the limit of {LARGEST_FILE} bytes"
        raise ValueError(f"{path}, {over}, is no {what} of tune_stoppers: it has {size} bytes")
    with filesystem.open_input_stream(path) as file:
        return bytes(file.read()).decode("utf-8", "replace")


def state_text(body: dict[str, Any]) -> str:
    """A state file: its format, the checksum of its body, and the body."""
    text = json.dumps(plain(body), separators=(",", ":"), allow_nan=False)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f'{{"format":{FORMAT},"sha256":"{digest}","body":{text}}}\n'


def read_state(filesystem: pafs.FileSystem, path: str) -> dict[str, Any]:
    """The body of a state file. `ValueError` says which file is torn, foreign or too new."""
    text = _read(filesystem, path, "state")
    try:
        data = parsed(text)
    except ValueError:
        raise ValueError(f"{path} is torn or no state of tune_stoppers") from None
    if not isinstance(data, dict) or not isinstance(data.get("format"), int):
        raise ValueError(f"{path} is no state of tune_stoppers")
    if data["format"] > FORMAT:
        raise ValueError(f"{path} is of format {data['format']}, this version reads {FORMAT}")
    body = data.get("body")
    if not isinstance(body, dict) or state_text(body).split('"', 6)[5] != data.get("sha256"):
        raise ValueError(f"{path} is damaged: its checksum is wrong")
    if not isinstance(body.get("lines"), int) or "state" not in body:
        raise ValueError(f"{path} is no state of tune_stoppers")
    return body


def request_text(why: str) -> str:
    """What a request to stop a trial says."""
    return json.dumps({"why": why, "time": round(time.time(), 3)}) + "\n"


def read_requests(filesystem: pafs.FileSystem, folder: str) -> dict[str, str]:
    """Trials that a user wants stopped, and why; files that say nothing sensible are left out."""
    found = {}
    selector = pafs.FileSelector(folder, allow_not_found=True)
    for info in filesystem.get_file_info(selector):
        sensible = info.type is pafs.FileType.File and (info.size or 0) <= 10_000
        if not sensible or not info.base_name.endswith(".json"):
            continue
        try:
            with filesystem.open_input_stream(info.path) as file:
                data = parsed(bytes(file.read()).decode())
        except FileNotFoundError:  # met and removed meanwhile
            continue
        except ValueError:
            continue
        if isinstance(data, dict):
            found[info.base_name[:-5]] = str(data.get("why", ""))
    return found
