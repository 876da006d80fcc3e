"""Writing a training state, and reading one back from any folder that users write.

Nothing is unpickled: weights are safetensors, and what `torch.save` wrote is read with torch's
loader restricted to tensors and plain containers.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from tune_stoppers.training.adapters import adapter_files, adapter_loader
from tune_stoppers.training.restoring import put_back, put_back_parts
from tune_stoppers.training.snapshot import (
    Snapshot,
    Stateful,
    StateMismatchError,
    take,
    unwrap,
)
from tune_stoppers.training.state_files import MANIFEST, StateFileError, read_state, write_state
from tune_stoppers.training.torch_files import Found, parts_in, read_torch

# what save_pretrained and the Trainer write, whole or in shards
_FULL = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_INDEX = ".index.json"
_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".safetensors")
_PARTS = ("optimizer", "scheduler")  # in files of their own: the Trainer's, Accelerate's
_NO_WEIGHTS = (*_PARTS, "rng_state", "random_states", "scaler", "sampler", "training_args")

UNDERSTOOD = (
    "folders of save_state and of BestStateKeeper; of the Hugging Face Trainer and of "
    "save_pretrained (safetensors or .bin, whole or sharded, PEFT adapters); a state dict of "
    "torch.save (.pt, .pth, .bin), by itself or in a dict; Lightning's .ckpt; .safetensors"
)


def save_state(
    folder: str | os.PathLike[str],
    model: nn.Module,
    optimizer: Stateful | None = None,
    scheduler: Stateful | None = None,
    *,
    trainable_only: bool | None = None,
    **extra: Any,
) -> None:
    """Write the present model, optimizer, scheduler and random state as the folder `folder`.

    ::

        with tempfile.TemporaryDirectory() as folder:
            save_state(folder, model, optimizer, step=step)
            tune.report({"loss": loss}, checkpoint=tune.Checkpoint.from_directory(folder))

    The folder appears whole or not at all, and no pickle is in it: safetensors and JSON. It must
    be new or empty; files of your own may be added afterwards.

    Args:
        folder: where to.
        model: inside `torch.compile` or data parallel it is the model itself that is kept.
        optimizer, scheduler: needed to train on; also anything else with `state_dict`.
        trainable_only: only what training moves. None: for PEFT models yes, else no.
        extra: numbers, strings, containers, tensors and arrays, which `load_state` gives back:
            `step=100`, `scaler=scaler.state_dict()`.

    Raises `FileExistsError` for a folder that is not empty, `OSError` if the disk refuses,
    `TypeError` for a value that cannot be kept.
    """
    write_state(take(model, optimizer, scheduler, trainable_only, extra), folder)


def load_state(
    folder: str | os.PathLike[str],
    model: nn.Module | None = None,
    optimizer: Stateful | None = None,
    scheduler: Stateful | None = None,
    *,
    random_state: bool | None = None,
) -> dict[str, Any]:
    """Put the state in `folder` into what is given, and return what `save_state` got as extra.

    ::

        if checkpoint := tune.get_checkpoint():
            with checkpoint.as_directory() as folder:
                start = load_state(folder, model, optimizer)["step"]

    All of what is given is loaded, or nothing: where something does not fit, model, optimizer and
    scheduler are left as they were. Besides `save_state`'s own, it reads what others write (with
    no extra): a checkpoint of the Hugging Face Trainer, `save_pretrained`, a PEFT adapter (wrap
    the model first: `peft.get_peft_model`), a state dict of `torch.save` (by itself, or in a dict
    with the optimizer's), a checkpoint of Lightning. Only tensors and plain containers are read:
    nothing that runs code.

    Args:
        folder: a folder, or one file.
        model, optimizer, scheduler: what to load; what is left out is not touched.
        random_state: whether Python's, numpy's and torch's generators are set too, to train on
            bit for bit; known of `save_state`'s alone. None: if an optimizer is given.

    Raises `StateFileError` if the folder holds nothing that is understood, or what it holds is
    torn, or of several optimizers or schedulers if one is asked for; `StateMismatchError`, naming
    names and shapes, if it does not fit. Both are `ValueError`.
    """
    source = _find(Path(folder))
    if _is_ours(source):
        snapshot = read_state(source)
        with _naming(source):
            put_back(snapshot, model, optimizer, scheduler, random_state=random_state)
        return snapshot.extra
    adapters = adapter_files(source)
    wanted = [part for part in (model, optimizer, scheduler) if part is not None]
    found = _read(source) if wanted and not adapters else Found(None)
    kept = [
        None if target is None else own or _part_beside(source, part)
        for part, target, own in zip(
            _PARTS,
            (optimizer, scheduler),
            (
                None if optimizer is None else found.optimizer(source),
                None if scheduler is None else found.scheduler(source),
            ),
            strict=True,
        )
    ]
    with _naming(source):
        load_model: Callable[[], None] | None = None
        if adapters and model is not None:
            tensors = {name: _read_weights(file) for name, file in adapters.items()}
            load_model = adapter_loader(model, tensors, to_train_on=optimizer is not None)
        snapshot = Snapshot(weights={}, optimizer=kept[0], scheduler=kept[1])
        if load_model is not None or model is None:
            put_back_parts(kept[0], optimizer, kept[1], scheduler, load_model)
        else:
            put_back(_fitted(found, model, snapshot), model, optimizer, scheduler)
    return {}


def load_weights(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The model's tensors in a checkpoint, by name, on the CPU.

    Of several adapters the name is in front, `sft.base_model…`. A file of `torch.save` without a
    state dict is given as it is. `StateFileError` names the file that is torn, or the folder that
    holds nothing that is understood.
    """
    source = _find(Path(folder))
    if _is_ours(source):
        return read_state(source).weights
    adapters = adapter_files(source)
    if adapters:
        tensors = {name: _read_weights(file) for name, file in adapters.items()}
        if len(tensors) == 1:
            return next(iter(tensors.values()))
        return {f"{name}.{key}": t for name, part in tensors.items() for key, t in part.items()}
    found = _read(source)
    return found.weights or found.value


# -- finding what a folder holds ---------------------------------------------------------------


def _is_ours(source: Path) -> bool:
    """Whether `save_state` wrote it, or began to: others have a manifest of their own."""
    return (source / MANIFEST).exists() and any(
        (source / name).exists() for name in ("state.json", "weights.safetensors")
    )


def _find(folder: Path) -> Path:
    """The folder or file to read: `folder`, its only file of weights, or its only such folder."""
    if not folder.exists():
        raise StateFileError(f"{folder} is not there.")
    if folder.is_file():
        return folder
    found = _source_in(folder)
    if found is not None:
        return found
    inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and _source_in(path)]
    if len(inner) == 1:
        return _source_in(inner[0]) or inner[0]
    names = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    raise StateFileError(
        f"{folder} holds no weights that can be restored; it has: {shown or 'nothing'}. "
        f"Understood: {UNDERSTOOD}."
    )


def _source_in(folder: Path) -> Path | None:
    if _is_ours(folder) or adapter_files(folder):
        return folder
    for name in _FULL:
        if (folder / name).exists():
            return folder / name
    files = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix in _SUFFIXES and not path.name.startswith(_NO_WEIGHTS) and path.is_file()
    ]
    if len(files) > 1:
        raise StateFileError(
            f"{folder} holds {len(files)} files of weights: "
            f"{', '.join(path.name for path in files[:5])}: give the path of one."
        )
    return files[0] if files else None


def _part_beside(source: Path, part: str) -> Any:
    """The optimizer's or scheduler's state in a file of its own; None: there is none."""
    folder = source if source.is_dir() else source.parent
    for suffix in (".pt", ".pth", ".bin"):
        if (folder / f"{part}{suffix}").exists():
            return read_torch(folder / f"{part}{suffix}")
    return None


# -- reading it --------------------------------------------------------------------------------


def _read(source: Path) -> Found:
    """The parts in one file, or in the shards that an index names."""
    if source.name.endswith(_INDEX):
        parts = [_read_weights(source.parent / shard) for shard in _shards(source)]
        return Found(None, {key: tensor for part in parts for key, tensor in part.items()})
    if source.suffix == ".safetensors":
        return Found(None, _read_safetensors(source))
    return parts_in(read_torch(source), source)


def _read_weights(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return parts_in(read_torch(path), path).weights


def _shards(index: Path) -> list[str]:
    """The files that an index of sharded weights names, which lie beside it."""
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return sorted({Path(name).name for name in names})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StateFileError(f"{index}: torn or no index of weights: {error!r}") from error


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise StateFileError(f"{path} cannot be read: {error}") from error


# -- fitting it to a model ---------------------------------------------------------------------


def _fitted(found: Found, model: nn.Module, parts: Snapshot) -> Snapshot:
    """What was found as a snapshot of `model`, in the model's own names."""
    if not found.weights:
        keys = list(found.value) if isinstance(found.value, Mapping) else []
        what = f"the keys {', '.join(map(str, keys[:10]))}" if keys else type(found.value).__name__
        raise StateFileError(f"it holds no state dict of a model, but {what}.")
    named = _without_wrapper(found.weights, unwrap(model).state_dict().keys())
    tensors = {name: value for name, value in named.items() if isinstance(value, torch.Tensor)}
    return Snapshot(
        weights=tensors,
        module_extra={name: value for name, value in named.items() if name not in tensors},
        optimizer=parts.optimizer,
        scheduler=parts.scheduler,
    )


def _without_wrapper(kept: dict[str, Any], own: Any) -> dict[str, Any]:
    """`kept` in the model's names: a wrapper (a LightningModule, say) puts its own before them."""
    first = next(iter(kept))
    at = -1
    while not kept.keys() & own and (at := first.find(".", at + 1)) != -1:
        prefix = first[: at + 1]
        if all(name.startswith(prefix) and name.removeprefix(prefix) in own for name in kept):
            return {name.removeprefix(prefix): value for name, value in kept.items()}
    return kept


@contextmanager
def _naming(source: Path) -> Iterator[None]:
    """Errors of the block say which checkpoint it is about."""
    try:
        yield
    except (StateMismatchError, StateFileError) as error:
        text = str(error)
        raise type(error)(text if str(source) in text else f"{source}: {text}") from error
