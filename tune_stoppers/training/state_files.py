"""A training state on disk: weights as safetensors, the rest as safetensors and JSON, no pickle.

A state is a folder of four files:

- `weights.safetensors`: the model's tensors, each stored once (tied names are in `state.json`);
- `training.safetensors`: every other tensor (optimizer, RNG, extra), named by its path;
- `state.json`: the numbers, strings and containers around those tensors;
- `manifest.json`: the format, its version, and the size and SHA-256 of the other three.

The folder is written under a temporary name, flushed to the disk and renamed, so it is either
whole or not there.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tune_stoppers.training.snapshot import Snapshot

FORMAT = "tune_stoppers.training_state"
VERSION = 1

_WEIGHTS = "weights.safetensors"
_TENSORS = "training.safetensors"
_STATE = "state.json"
MANIFEST = "manifest.json"
_FILES = (_WEIGHTS, _TENSORS, _STATE)


class StateFileError(ValueError):
    """A kept state cannot be read: torn, foreign or written by a newer version."""


# -- containers <-> JSON -----------------------------------------------------------------------


def encode(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Turn `value` into strict JSON; its tensors go into `tensors`, named by their path.

    What JSON lacks is an object with one key that begins with `$`. Raises `TypeError` naming the
    path of a value that is neither a number, string, container, tensor nor array.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
    if isinstance(value, np.generic):
        return encode(value.item(), path, tensors)
    if isinstance(value, Tensor):
        return {"$tensor": _add(tensors, path, value)}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {"$array": _add(tensors, path, torch.from_numpy(value.copy()))}
    if isinstance(value, list):
        return [encode(item, f"{path}.{i}", tensors) for i, item in enumerate(value)]
    if isinstance(value, tuple):
        return {"$tuple": encode(list(value), path, tensors)}
    if isinstance(value, Mapping):
        return _encode_mapping(value, path, tensors)
    raise TypeError(
        f"{path}: a kept state holds numbers, strings, lists, tuples, dicts, tensors and arrays, "
        f"got {type(value).__name__}"
    )


def _encode_mapping(value: Mapping[Any, Any], path: str, tensors: dict[str, Tensor]) -> Any:
    items = [(key, encode(item, f"{path}.{key}", tensors)) for key, item in value.items()]
    if all(isinstance(key, str) and not key.startswith("$") for key in value):
        return dict(items)
    return {"$dict": [[encode(key, f"{path} (key)", tensors), item] for key, item in items]}


def _add(tensors: dict[str, Tensor], path: str, tensor: Tensor) -> str:
    name = path if path not in tensors else f"{path}#{len(tensors)}"  # {"a.b": _, "a": {"b": _}}
    tensors[name] = tensor
    return name


def decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Undo `encode`. Raises `KeyError` for an unknown tensor or tag."""
    if isinstance(value, list):
        return [decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next((key for key in value if key.startswith("$")), None)
    if tag is None:
        return {key: decode(item, tensors) for key, item in value.items()}
    return _DECODERS[tag](value[tag], tensors)


_DECODERS: dict[str, Callable[[Any, Mapping[str, Tensor]], Any]] = {
    "$float": lambda text, tensors: float(text),
    "$tensor": lambda name, tensors: tensors[name],
    "$array": lambda name, tensors: tensors[name].numpy(),
    "$tuple": lambda items, tensors: tuple(decode(items, tensors)),
    "$dict": lambda items, tensors: {decode(k, tensors): decode(v, tensors) for k, v in items},
}


# -- writing -----------------------------------------------------------------------------------


def write_state(snapshot: Snapshot, directory: str | os.PathLike[str]) -> None:
    """Write `snapshot` as the new folder `directory`, whole or not at all.

    The folder may exist if it is empty. Raises `FileExistsError` if it is not, `OSError` if the
    disk refuses (full, read-only), `TypeError` for a value that cannot be kept; nothing of the
    unfinished state is left then.
    """
    target = Path(directory).absolute()
    if target.is_dir() and any(target.iterdir()):
        raise FileExistsError(f"{target} is not empty: give a new or an empty folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(target)
    temporary.mkdir()
    try:
        _write_files(snapshot, temporary)
        temporary.rename(target)
    except BaseException:  # also Ctrl-C: an unfinished folder is of no use to anyone
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _flush(target.parent)


def temporary_name(target: Path) -> Path:
    """A fresh name beside `target`, for a folder that is being written or removed."""
    return target.with_name(f".{target.name}.{os.urandom(4).hex()}.tmp")


def _write_files(snapshot: Snapshot, folder: Path) -> None:
    tensors: dict[str, Tensor] = {}
    state = {
        part.name: encode(getattr(snapshot, part.name), part.name, tensors)
        for part in fields(snapshot)
        if part.name != "weights"
    }
    _write_json(folder / _STATE, state)
    _write_tensors(folder / _WEIGHTS, snapshot.weights)
    _write_tensors(folder / _TENSORS, tensors)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "files": {name: _fingerprint(folder / name) for name in _FILES},
    }
    _write_json(folder / MANIFEST, manifest)
    for name in (*_FILES, MANIFEST):
        _flush(folder / name)
    _flush(folder)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, allow_nan=False), encoding="utf-8")


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    try:
        save_file(_separate(tensors), path, metadata={"format": "pt"})
    except SafetensorError as error:  # how safetensors reports a full disk or a missing folder
        raise OSError(f"{path}: {error}") from error
    # safetensors makes its files private; on shared storage they must be as open as the others.
    path.chmod((path.parent / _STATE).stat().st_mode & 0o777)


def _separate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, and no two in the same storage, as safetensors wants them."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        stored = tensor.detach().cpu().contiguous()
        if stored.untyped_storage().data_ptr() in seen:
            stored = stored.clone()
        seen.add(stored.untyped_storage().data_ptr())
        separate[name] = stored
    return separate


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _flush(path: Path) -> None:
    """Have a file's bytes, or a folder's names, on the disk before continuing."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# -- reading -----------------------------------------------------------------------------------


def read_state(directory: str | os.PathLike[str]) -> Snapshot:
    """Read a whole state, checksums verified. Raises `StateFileError` naming the file and why."""
    folder = Path(directory)
    _check(folder, verify=_FILES)
    tensors = _read_tensors(folder / _TENSORS)
    return Snapshot(weights=_read_tensors(folder / _WEIGHTS), **_read_rest(folder, tensors))


def read_extra(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """The caller's own part of a state, without reading a tensor; it must hold none.

    Of the large files only the size is checked. Raises `StateFileError` as `read_state` does.
    """
    folder = Path(directory)
    _check(folder, verify=(_STATE,))
    try:
        extra: dict[str, Any] = decode(_read_json(folder / _STATE)["extra"], {})
    except (KeyError, TypeError, ValueError) as error:
        raise StateFileError(f"{folder / _STATE}: cannot be decoded: {error!r}") from error
    return extra


def _check(folder: Path, *, verify: Collection[str]) -> None:
    manifest_path = folder / MANIFEST
    if not manifest_path.is_file():
        raise StateFileError(f"{manifest_path}: not there: {folder} holds no whole training state")
    manifest = _read_json(manifest_path)
    if manifest.get("format") != FORMAT:
        raise StateFileError(
            f"{manifest_path}: not a training state: format is {manifest.get('format')!r}, "
            f"not {FORMAT!r}"
        )
    version = manifest.get("version")
    if not isinstance(version, int) or version < 1:
        raise StateFileError(f"{manifest_path}: version must be a positive int, got {version!r}")
    if version > VERSION:
        raise StateFileError(
            f"{manifest_path}: written in format version {version}, newer than {VERSION}, the "
            "newest that this tune_stoppers reads: update tune_stoppers"
        )
    recorded = manifest.get("files")
    if not isinstance(recorded, dict):
        raise StateFileError(f"{manifest_path}: lists no files: torn or edited")
    for name in _FILES:
        _check_file(folder / name, recorded.get(name), verify=name in verify)


def _check_file(path: Path, recorded: Any, *, verify: bool) -> None:
    if not isinstance(recorded, dict):
        raise StateFileError(f"{path}: not listed in {MANIFEST}: torn or edited")
    if not path.is_file():
        raise StateFileError(f"{path}: listed in {MANIFEST} but not there")
    size = path.stat().st_size
    if size != recorded.get("bytes"):
        raise StateFileError(f"{path}: torn: {size} bytes, {recorded.get('bytes')} were written")
    if not verify:
        return
    try:
        found = _fingerprint(path)
    except OSError as error:
        raise StateFileError(f"{path}: cannot be read: {error}") from error
    if found["sha256"] != recorded.get("sha256"):
        raise StateFileError(f"{path}: its SHA-256 is not the recorded one: damaged or edited")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StateFileError(f"{path}: torn or not JSON: {error}") from error
    if not isinstance(value, dict):
        raise StateFileError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise StateFileError(f"{path}: torn or not safetensors: {error}") from error
    return tensors


def _read_rest(folder: Path, tensors: dict[str, Tensor]) -> dict[str, Any]:
    encoded = _read_json(folder / _STATE)
    expected = {part.name for part in fields(Snapshot)} - {"weights"}
    if set(encoded) != expected:
        raise StateFileError(
            f"{folder / _STATE}: expected the keys {sorted(expected)}, got {sorted(encoded)}"
        )
    try:
        rest: dict[str, Any] = decode(encoded, tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise StateFileError(f"{folder / _STATE}: cannot be decoded: {error!r}") from error
    return rest
