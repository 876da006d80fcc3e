"""Checkpoint folders of either kind: those of `save_state`, and those of the HF Trainer.

Nothing is unpickled: weights are safetensors, and the Trainer's optimizer and scheduler files are
read with torch's loader restricted to tensors and plain containers.
"""

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tune_stoppers.training.keeper import load_state
from tune_stoppers.training.snapshot import StateMismatchError
from tune_stoppers.training.state_files import MANIFEST, StateFileError, read_state

ADAPTER, WEIGHTS, INDEX = (
    "adapter_model.safetensors",
    "model.safetensors",
    "model.safetensors.index.json",
)
OPTIMIZER, SCHEDULER = "optimizer.pt", "scheduler.pt"


def load_weights(directory: str | Path) -> dict[str, torch.Tensor]:
    """The model's tensors in a checkpoint folder, by name, on the CPU.

    `StateFileError` names the file that is torn, or the folder that holds no weights.
    """
    folder = Path(directory)
    if (folder / MANIFEST).exists():
        return read_state(folder).weights
    for name in (ADAPTER, WEIGHTS):
        if (folder / name).exists():
            return _read_safetensors(folder / name)
    if (folder / INDEX).exists():
        parts = [_read_safetensors(folder / shard) for shard in _shards(folder / INDEX)]
        return {key: tensor for part in parts for key, tensor in part.items()}
    raise StateFileError(
        f"{folder} holds no weights: none of {MANIFEST}, {ADAPTER}, {WEIGHTS}, {INDEX}."
    )


def restore_checkpoint(
    directory: str | Path, model: Any, optimizer: Any = None, scheduler: Any = None
) -> None:
    """Put the checkpoint into `model` and, if given, into `optimizer` and `scheduler`.

    A LoRA checkpoint needs the model wrapped with the same adapter first
    (`peft.get_peft_model`). `StateMismatchError` names what does not fit.
    """
    folder = Path(directory)
    if (folder / MANIFEST).exists():
        load_state(folder, model, optimizer, scheduler)
        return
    weights = load_weights(folder)
    if (folder / ADAPTER).exists():
        _load_adapter(model, weights, folder)
    else:
        _load_full(model, weights, folder)
    for target, name in ((optimizer, OPTIMIZER), (scheduler, SCHEDULER)):
        if target is not None:
            target.load_state_dict(_read_tensors(folder / name))


def _load_adapter(model: Any, weights: dict[str, torch.Tensor], folder: Path) -> None:
    if not hasattr(model, "peft_config"):
        raise StateMismatchError(
            f"{folder} holds a LoRA adapter, but the model has none: wrap it first, "
            "model = peft.get_peft_model(model, LoraConfig(...)) with the trial's settings."
        )
    from peft import set_peft_model_state_dict  # only adapters need peft

    try:
        loaded = set_peft_model_state_dict(model, weights)
    except RuntimeError as error:  # torch's: shapes differ
        raise StateMismatchError(f"{folder} does not fit the model's adapter: {error}") from error
    missing = [key for key in loaded.missing_keys if "lora_" in key]
    if loaded.unexpected_keys or missing:
        raise StateMismatchError(
            f"{folder} does not fit the model's adapter: "
            f"unexpected {loaded.unexpected_keys[:3]}, missing {missing[:3]}."
        )


def _load_full(model: Any, weights: dict[str, torch.Tensor], folder: Path) -> None:
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise StateMismatchError(f"{folder} does not fit the model: {error}") from error
    state = model.state_dict()
    present = {state[key].data_ptr() for key in weights if key in state}
    absent = [key for key in missing if state[key].data_ptr() not in present]  # not merely tied
    if unexpected or absent:
        raise StateMismatchError(
            f"{folder} does not fit the model: unexpected {unexpected[:3]}, missing {absent[:3]}."
        )


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


def _read_tensors(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise StateFileError(f"{path} cannot be read: {error}") from error
