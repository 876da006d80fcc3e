"""Runs of Weights & Biases from their `.wandb` files, which every run leaves, offline or not.

Such a file is a log in the format of LevelDB: blocks of 32 KiB that hold chunks, each with a
checksum, a length and a type (whole, first, middle, last). A record that they make up is a
protobuf message. `wandb` 0.31 has no reader of its own in Python, so the chunks are read here and
the messages by protobuf, from the few fields that are needed: the numbers of fields never change.
Sources: https://github.com/google/leveldb/blob/main/doc/log_format.md and
https://github.com/wandb/wandb/blob/main/wandb/proto/wandb_internal.proto.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from tune_stoppers.journal.lines import parsed
from tune_stoppers.metrics import number
from tune_stoppers.recorded.runs import Kept, Run, TrackerError, files_in, flat

SUFFIX = ".wandb"
IDENT = b":W&B"
HEADER = struct.Struct("<4sHB")  # ident, magic, version
MAGIC = 0xBEE1
BLOCK = 32_768  # bytes
CHUNK = struct.Struct("<IHB")  # checksum, length, type
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4
LARGEST_RECORD = 256 * 2**20  # bytes
WORDS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


class CutShort(Exception):
    """The rest of a file cannot be read: it was killed while it was written, or is damaged."""


def is_log(path: Path) -> bool:
    """Whether the file begins as a log of W&B."""
    with path.open("rb") as file:
        return file.read(len(IDENT)) == IDENT


def read(path: Path) -> Kept:
    """The runs of a `.wandb` file, or of all that lie in a folder.

    What a run logged when it was resumed follows what it had logged before. `TrackerError` where
    there are none.
    """
    found = [path] if path.is_file() else [p for p in files_in(path) if p.suffix == SUFFIX]
    runs: dict[str, Run] = {}
    cut = 0
    for file in sorted(found, key=lambda p: (p.parent.name, p.name)):  # named by their time
        cut += _read_file(file, runs)
    if not runs:
        raise TrackerError(f"{path} holds no run of W&B (no .wandb file with a run in it).")
    said = f"{len(found)} .wandb file{'s' * (len(found) > 1)}: time by '_step'."
    if cut:
        said += f" {cut} of them end{'s' * (cut == 1)} within a record, and count up to there."
    return Kept(list(runs.values()), said)


def _read_file(path: Path, runs: dict[str, Run]) -> bool:
    """Add what a file tells to `runs`; True if its end cannot be read."""
    kinds = _messages()
    run = Run(path.stem.removeprefix("run-"))
    config: dict[str, Any] = {}
    begun: set[str] = set()  # metrics that this file has reported
    cut = False
    with path.open("rb") as file:
        try:
            for data in records(file, path):
                record = kinds["Record"]()
                record.ParseFromString(data)
                if record.HasField("run"):
                    known = runs.setdefault(record.run.run_id or run.run_id, run)
                    run = known
                    run.run_id = record.run.run_id or run.run_id
                    run.name = record.run.display_name or run.name
                    _take_config(record.run.config.update, config)
                elif record.HasField("config"):
                    _take_config(record.config.update, config)
                elif record.HasField("history"):
                    runs.setdefault(run.run_id, run)
                    _take_row(record.history, run, begun)
        except CutShort:
            cut = True
        except kinds["Error"]:
            cut = True
    run.config |= flat({key: value for key, value in config.items() if key != "_wandb"})
    return cut


def records(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The records of a log. `TrackerError` if it is none, `CutShort` where it breaks off."""
    head = file.read(HEADER.size)
    if len(head) < HEADER.size or HEADER.unpack(head)[:2] != (IDENT, MAGIC):
        raise TrackerError(f"{path} is no log of W&B: it does not begin as one.")
    parts: list[bytes] = []
    while True:
        left = BLOCK - file.tell() % BLOCK
        if left < CHUNK.size:
            file.seek(left, 1)  # the rest of a block is padding
        head = file.read(CHUNK.size)
        if not head and not parts:
            return
        if len(head) < CHUNK.size:
            raise CutShort
        checksum, length, kind = CHUNK.unpack(head)
        data = file.read(length)
        if len(data) < length or zlib.crc32(data, zlib.crc32(bytes([kind]))) != checksum:
            raise CutShort
        if kind in (WHOLE, FIRST):
            parts = []
        parts.append(data)
        if kind in (WHOLE, LAST):
            yield b"".join(parts)
            parts = []
        elif sum(map(len, parts)) > LARGEST_RECORD:
            raise CutShort


def _take_config(updates: Sequence[Any], config: dict[str, Any]) -> None:
    for item in updates:
        *above, last = _names_of(item)
        inner = config
        for name in above:
            deeper = inner.get(name)
            inner = inner.setdefault(name, {}) if not isinstance(deeper, dict) else deeper
            if not isinstance(inner, dict):
                break
        else:
            inner[last] = _json(item.value_json)


def _take_row(history: Any, run: Run, begun: set[str]) -> None:
    row = {".".join(_names_of(item)): _value(item) for item in history.item}
    values: dict[str, float] = {}
    for key, value in row.items():
        values |= _numbers(key, value)
    step = values.get("_step", float(history.step.num))
    if step != step or abs(step) == float("inf"):
        return
    for name, value in values.items():
        if not name.startswith("_"):
            if name not in begun:
                begun.add(name)
                run.rewind(name, int(step))
            run.report(int(step), name, value, values.get("_runtime"))


def _numbers(key: str, value: Any) -> dict[str, float]:
    """The numbers in a logged value, of a dict those in it."""
    if isinstance(value, Mapping):
        if "_type" in value:
            return {}  # a picture, a table
        found: dict[str, float] = {}
        for name, inner in value.items():
            found |= _numbers(f"{key}.{name}", inner)
        return found
    read = WORDS.get(value) if isinstance(value, str) else number(value)
    return {} if read is None else {key: read}


def _value(item: Any) -> Any:
    """A logged value, in the one or the other way in which versions of W&B write it."""
    kind = item.WhichOneof("value")
    if kind == "json":
        return _json(item.json)
    return _json(item.value_json) if kind is None else getattr(item, kind)


def _json(text: str) -> Any:
    try:
        return parsed(text)
    except ValueError:
        return None


def _names_of(item: Any) -> list[str]:
    return list(item.nested_key) or [item.key]


@cache
def _messages() -> dict[str, Any]:
    """The messages of W&B, with the fields that are read here."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

    kind = descriptor_pb2.FieldDescriptorProto
    texts, whole = kind.TYPE_STRING, kind.TYPE_INT64
    one, many = kind.LABEL_OPTIONAL, kind.LABEL_REPEATED
    item = [("key", 1, texts, one, ""), ("nested_key", 2, texts, many, "")]
    item += [("value_json", 16, texts, one, "")]
    typed = [("boolean", 4, kind.TYPE_BOOL, one, ""), ("integer", 5, kind.TYPE_SINT64, one, "")]
    typed += [("number", 6, kind.TYPE_DOUBLE, one, ""), ("text", 7, texts, one, "")]
    typed += [("json", 8, texts, one, "")]
    fields = {
        "ConfigItem": item,
        "ConfigRecord": [("update", 1, None, many, "ConfigItem")],
        "HistoryStep": [("num", 1, whole, one, "")],
        "HistoryItem": item + typed,
        "HistoryRecord": [
            ("item", 1, None, many, "HistoryItem"),
            ("step", 2, None, one, "HistoryStep"),
        ],
        "RunRecord": [
            ("run_id", 1, texts, one, ""),
            ("config", 4, None, one, "ConfigRecord"),
            ("display_name", 8, texts, one, ""),
        ],
        "Record": [
            ("history", 2, None, one, "HistoryRecord"),
            ("config", 5, None, one, "ConfigRecord"),
            ("run", 17, None, one, "RunRecord"),
        ],
    }
    package = "tune_stoppers_wandb"
    file = descriptor_pb2.FileDescriptorProto(
        name="tune_stoppers/wandb.proto", package=package, syntax="proto3"
    )
    for name, described in fields.items():
        made = file.message_type.add(name=name)
        if name == "HistoryItem":
            made.oneof_decl.add(name="value")
        for field, tag, type_, label, of in described:
            added = made.field.add(name=field, number=tag, label=label)
            added.type = kind.TYPE_MESSAGE if type_ is None else type_
            if of:
                added.type_name = f".{package}.{of}"
            if (field, tag, type_, label, of) in typed and name == "HistoryItem":
                added.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    classes: dict[str, Any] = {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        for name in fields
    }
    return classes | {"Error": message.DecodeError}
