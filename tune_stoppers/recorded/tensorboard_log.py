"""Runs of TensorBoard from a folder of event files.

An event file holds records: a length with its checksum, then a protobuf message with its own.
The messages are read by the classes of tensorboardX, which comes with Ray Tune: TensorBoard itself
is not needed.
Source: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from tune_stoppers.recorded.runs import Kept, Run, TrackerError, files_in

EVENTS = "tfevents"  # in the name of each event file
LENGTH = struct.Struct("<Q")
CHECKSUM = struct.Struct("<I")
LARGEST_RECORD = 2**31  # bytes, of a protobuf message
SPLITS = frozenset({"train", "validation", "val", "eval", "test"})  # Keras: a folder each
OF_HPARAMS = re.compile(r"\d{9,}(\.\d+)?")  # the folder in which `add_hparams` writes: a time
SESSION = "_hparams_/session_start_info"
NUMBERS = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8"}  # TensorFlow's types of one tensor


def is_events(path: Path) -> bool:
    """Whether the file is called an event file."""
    return EVENTS in path.name


def read(path: Path) -> Kept:
    """The runs of a folder: a run for each folder with event files, or of one event file.

    The folders `train`, `validation`, … of one run (Keras) are one run, with those names before
    its metrics. What `add_hparams` writes beside a run is that run's, and so is what `add_scalars`
    does: `add_scalars("loss", {"train": …})` is the metric "loss/train".
    """
    top = path if path.is_dir() else path.parent
    found = [p for p in files_in(path) if is_events(p)] if path.is_dir() else [path]
    if not found:
        raise TrackerError(f"{path} holds no event files of TensorBoard (*{EVENTS}*).")
    folders = {file.parent for file in found}
    runs: dict[Path, Run] = {}
    clocks: dict[Path, Clock] = {}
    cut = 0
    for file in found:
        place = _place(file, folders, top)
        here = place.run
        name = here.relative_to(top).as_posix() if here != top else top.resolve().name
        run = runs.setdefault(here, Run(name, name))
        cut += _read_file(file, run, clocks.setdefault(here, Clock()), place)
    said = (
        f"{len(found)} event file{'s' * (len(found) > 1)}: time by its "
        "step, seconds by its wall time."
    )
    if cut:
        said += f" {cut} of them end{'s' * (cut == 1)} within a record, and count up to there."
    return Kept(list(runs.values()), said)


class Place(NamedTuple):
    """Where a file belongs."""

    run: Path
    prefix: str = ""  # before its tags
    suffix: str = ""  # behind them
    own: bool = True  # its values are the run's


def _place(file: Path, folders: Collection[Path], top: Path) -> Place:
    here = file.parent
    if here == top:
        return Place(here)
    if OF_HPARAMS.fullmatch(here.name) and here.parent in folders:
        return Place(here.parent, own=False)
    for run in here.parents:
        if run in folders and (key := _beside(file, here.relative_to(run).as_posix())):
            return Place(run, suffix=f"/{key}")
        if run == top:
            break
    return Place(here.parent, prefix=f"{here.name}/") if here.name in SPLITS else Place(here)


def _beside(file: Path, folder: str) -> str:
    """The key of `add_scalars` by which a file lies in that folder of its run; "" if none.

    PyTorch calls the folder "loss_train", tensorboardX "loss/train"; the tag in it is "loss".
    """
    with file.open("rb") as opened:
        for data in records(opened, file):
            event = None if data is None else _event(data)
            if event is None:
                return ""
            for value in event.summary.value:
                for head in (value.tag.replace("/", "_") + "_", f"{value.tag}/"):
                    if folder.startswith(head):
                        return folder.removeprefix(head)
                return ""
    return ""


class Clock:
    """Seconds of a run, which may be in several files: downtime between two of them is none."""

    def __init__(self) -> None:
        self._zero: float | None = None  # wall time
        self._last = -math.inf  # wall time

    def begin(self, wall_time: float) -> None:
        """A file begins."""
        if self._zero is None:
            self._zero = wall_time
        elif wall_time > self._last:
            self._zero += wall_time - self._last

    def seconds(self, wall_time: float) -> float | None:
        """Since the run began; None where the file's clock is none."""
        if self._zero is None or not math.isfinite(wall_time - self._zero):
            return None
        self._last = max(self._last, wall_time)
        return wall_time - self._zero


def _read_file(path: Path, run: Run, clock: Clock, place: Place) -> bool:
    """Add what a file tells to `run`; True if its end cannot be read.

    Where a metric starts in it at a step at which the run was before, the run began again from
    there, and what it had reported later is dropped.
    """
    own = place.own
    begun: set[str] = set()
    started = False
    with path.open("rb") as file:
        for data in records(file, path):
            event = None if data is None else _event(data)
            if event is None:
                return True
            if not started and own:
                started = True
                clock.begin(event.wall_time)
            for value in event.summary.value:
                if value.tag == SESSION:
                    run.config |= _hyperparameters(value.metadata.plugin_data.content)
                number = _number(value) if own else None
                if number is None:
                    continue
                metric = place.prefix + value.tag + place.suffix
                if metric not in begun:
                    begun.add(metric)
                    run.rewind(metric, event.step)
                run.report(event.step, metric, number, clock.seconds(event.wall_time))
    return False


def records(file: BinaryIO, path: Path) -> Iterator[bytes | None]:
    """The records of an event file, and None where the rest cannot be read.

    `TrackerError` if it does not begin as one.
    """
    from tensorboardX.crc32c import crc32c

    first = True
    while head := file.read(LENGTH.size + CHECKSUM.size):
        whole = len(head) == LENGTH.size + CHECKSUM.size
        if whole:
            masked = crc32c(head[: LENGTH.size])
            masked = (((masked >> 15) | (masked << 17)) + 0xA282EAD8) & 0xFFFFFFFF
            whole = masked == CHECKSUM.unpack(head[LENGTH.size :])[0]
        if first and not whole:
            raise TrackerError(f"{path} is no event file of TensorBoard: it does not begin as one.")
        first = False
        length = LENGTH.unpack(head[: LENGTH.size])[0] if whole else LARGEST_RECORD
        data = file.read(length) if length < LARGEST_RECORD else b""
        if not whole or len(data) < length or len(file.read(CHECKSUM.size)) < CHECKSUM.size:
            yield None
            return
        yield data


def _event(data: bytes) -> Any:
    """The message of a record; None if it is none."""
    from google.protobuf.message import DecodeError
    from tensorboardX.proto import event_pb2

    try:
        return event_pb2.Event.FromString(data)
    except DecodeError:
        return None


def _number(value: Any) -> float | None:
    """The scalar in a summary, in the one or the other way in which versions write it."""
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return float(value.simple_value)
    if kind != "tensor" or value.tensor.dtype not in NUMBERS:
        return None
    tensor = value.tensor
    if tensor.tensor_content:
        try:
            cells = np.frombuffer(tensor.tensor_content, dtype=NUMBERS[tensor.dtype]).tolist()
        except ValueError:
            return None
    else:
        cells = [*tensor.float_val, *tensor.double_val, *tensor.int_val, *tensor.int64_val]
    return float(cells[0]) if len(cells) == 1 else None


def _hyperparameters(content: bytes) -> dict[str, Any]:
    from google.protobuf.message import DecodeError
    from tensorboardX.proto import plugin_hparams_pb2

    try:
        session = plugin_hparams_pb2.HParamsPluginData.FromString(content).session_start_info
    except DecodeError:
        return {}
    kinds = {key: value.WhichOneof("kind") for key, value in session.hparams.items()}
    return {
        key: getattr(session.hparams[key], kind)
        for key, kind in kinds.items()
        if kind in ("number_value", "string_value", "bool_value")
    }
