"""What `torch.save` wrote, Lightning's checkpoint files among it; read without unpickling code."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tune_stoppers.training.state_files import StateFileError

# how the model's weights are called where a file has several sets of them, the likeliest first
_MODEL_NAMES = (
    "model_state_dict",
    "state_dict",
    "model_state",
    "model",
    "net",
    "module",
    "weights",
)


@dataclass(frozen=True)
class Found:
    """The parts of a training state in one file, told by what they look like."""

    value: Any  # all of it, as it was saved
    weights: dict[str, Any] = field(default_factory=dict)
    optimizers: dict[str, dict[str, Any]] = field(default_factory=dict)  # by name
    schedulers: dict[str, dict[str, Any]] = field(default_factory=dict)

    def optimizer(self, path: Path) -> dict[str, Any] | None:
        """The only optimizer's state, None without; `StateFileError` of `path` if several."""
        return _only(self.optimizers, "optimizers", path)

    def scheduler(self, path: Path) -> dict[str, Any] | None:
        """The only scheduler's state, None without; `StateFileError` of `path` if several."""
        return _only(self.schedulers, "schedulers", path)


def read_torch(path: Path) -> Any:
    """What `torch.save` wrote: tensors, numbers, strings and containers of them, nothing else.

    `StateFileError` if the file is torn or holds anything more, which only running code of the
    file's own could read.
    """
    try:
        with warnings.catch_warnings():  # of torch about pickles of other versions
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that was torn or forged may raise anything
        more = (
            ""
            if not _holds_more(error)
            else (
                " It holds more than tensors, numbers, strings and containers, and no more is "
                "unpickled here: save a state dict, torch.save(model.state_dict(), path), or use "
                "tune_stoppers.save_state."
            )
        )
        raise StateFileError(f"{path} cannot be read: {_first_line(error)}{more}") from error


def _holds_more(error: Exception) -> bool:
    return "Unsupported" in str(error) or "Weights only load failed" in str(error)


def _first_line(error: Exception) -> str:
    text = str(error)
    found = [line.strip() for line in text.splitlines() if "Unsupported" in line]
    return (found or text.splitlines() or [type(error).__name__])[0]


def parts_in(value: Any, path: Path) -> Found:
    """The weights, the optimizer's and the scheduler's state in what `torch.save` wrote.

    Either the weights by themselves, or these parts in a dict, list or tuple: told by what they
    look like, as everyone names them otherwise. `StateFileError` for several sets of weights.
    """
    if _is_weights(value):
        return Found(value, dict(value))
    named = dict(_parts(value))
    weights = {name: part for name, part in named.items() if _is_weights(part)}
    if not weights and isinstance(value, Mapping):  # weights with a number or two among them
        own = {str(name): part for name, part in value.items() if isinstance(part, Tensor)}
        weights = {"": own} if own else {}
    chosen = next((weights[name] for name in _MODEL_NAMES if name in weights), None)
    return Found(
        value,
        dict(chosen or _only(weights, "sets of weights", path) or {}),
        {name: part for name, part in named.items() if _is_optimizer(part)},
        {name: part for name, part in named.items() if _is_schedule(part)},
    )


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """The parts of a container by name; Lightning has its optimizers in a list."""
    items: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, Mapping) else ()
    items = enumerate(value) if isinstance(value, (list, tuple)) else items
    for name, part in items:
        if isinstance(part, (list, tuple)):
            yield from ((f"{name}/{number}", inner) for number, inner in enumerate(part))
        else:
            yield str(name), part


def _only(found: dict[str, Any], kind: str, path: Path) -> dict[str, Any] | None:
    if len(found) > 1:
        raise StateFileError(f"{path} holds {len(found)} {kind}: {', '.join(found)}.")
    return next(iter(found.values()), None)


def _is_weights(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and any(isinstance(part, Tensor) for part in value.values())
        and all(
            isinstance(part, Tensor) or str(name).endswith("_extra_state")
            for name, part in value.items()
        )
        and all(isinstance(name, str) for name in value)
    )


def _is_optimizer(value: Any) -> bool:
    return isinstance(value, Mapping) and {"state", "param_groups"} <= value.keys()


def _is_schedule(value: Any) -> bool:
    return isinstance(value, Mapping) and "last_epoch" in value and "param_groups" not in value
