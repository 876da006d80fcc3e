"""A training state as plain data: take it from live objects, copy it, put it back.

`model.state_dict()` hands out the live tensors: a "best state" made of it keeps training. A
snapshot that outlives the moment is therefore copied, and putting one back copies it again.
"""

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn


class StateMismatchError(ValueError):
    """A kept state does not fit the model, optimizer or scheduler that it is to be put into."""


class Stateful(Protocol):
    """An optimizer or a learning-rate scheduler: anything with these two methods."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


@dataclass(frozen=True)
class Snapshot:
    """A training state as plain data: tensors, numbers, strings and containers of them."""

    weights: dict[str, Tensor]  # every tensor once, by its first name in the model's state dict
    tied: dict[str, str] = field(default_factory=dict)  # other name -> the name in `weights`
    module_extra: dict[str, Any] = field(default_factory=dict)  # what `get_extra_state` returned
    trainable_only: bool = False
    optimizer: dict[str, Any] | None = None
    scheduler: dict[str, Any] | None = None
    rng: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)  # the caller's own


# -- a model's tensors -------------------------------------------------------------------------


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside `torch.compile` and data-parallel wrappers, whose names are stable."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = cast(nn.Module, model.module)
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = cast(nn.Module, model._orig_mod)
        else:
            return model


def _is_peft(model: nn.Module) -> bool:
    """Whether PEFT wrapped the model or transformers put adapters into it."""
    return hasattr(model, "peft_config") or getattr(model, "_hf_peft_config_loaded", False) is True


def trained_names(model: nn.Module) -> set[str]:
    """Names of the tensors that training moves.

    These are the parameters that require a gradient, the buffers beside them, and the running
    statistics of normalisation layers, which move even when their layer is frozen.
    """
    names = set()
    for prefix, module in model.named_modules(remove_duplicate=False):
        own = dict(module.named_parameters(recurse=False, remove_duplicate=False))
        trained = {name for name, parameter in own.items() if parameter.requires_grad}
        if trained or isinstance(module, nn.modules.batchnorm._NormBase):
            trained |= {name for name, _ in module.named_buffers(recurse=False)}
        names |= {f"{prefix}.{name}" if prefix else name for name in trained}
    return names


def _check_storable(name: str, tensor: Tensor) -> None:
    if hasattr(tensor, "__tensor_flatten__") or tensor.layout is not torch.strided:
        raise TypeError(
            f"cannot keep {name}: {type(tensor).__name__} ({tensor.layout}) is not one plain "
            "tensor; gather a sharded model to full tensors first"
        )
    if tensor.is_meta:
        raise ValueError(f"cannot keep {name}: it is on the meta device and has no values")


def split_tied(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Each tensor once, by its first name, and the other names it has."""
    first: dict[tuple[object, ...], str] = {}
    weights: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    for name, tensor in tensors.items():
        memory = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and memory in first:
            tied[name] = first[memory]
        else:
            first[memory] = name
            weights[name] = tensor
    return weights, tied


# -- random generators -------------------------------------------------------------------------


def rng_state() -> dict[str, Any]:
    state = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
    }
    # Asking for the CUDA state would start CUDA in a run that does not use it.
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        for device, cuda_state in enumerate(state.get("cuda", [])[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(cuda_state, device)


@contextmanager
def own_generators() -> Iterator[None]:
    """Leave the random generators as they are, whatever the block does to them."""
    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)


# -- taking and copying a state ----------------------------------------------------------------


def take(
    model: nn.Module,
    optimizer: Stateful | None,
    scheduler: Stateful | None,
    trainable_only: bool | None,
    extra: dict[str, Any],
) -> Snapshot:
    """The present state, its tensors still the live ones: to be written or copied at once."""
    model = unwrap(model)
    trainable_only = _is_peft(model) if trainable_only is None else trainable_only
    state = model.state_dict()
    if trainable_only:
        trained = trained_names(model)
        state = {name: value for name, value in state.items() if name in trained}
        if not state:
            raise ValueError(
                "trainable_only, but no parameter of the model requires a gradient: train some, "
                "or pass trainable_only=False"
            )
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    for name, tensor in tensors.items():
        _check_storable(name, tensor)
    weights, tied = split_tied(tensors)
    return Snapshot(
        weights=weights,
        tied=tied,
        module_extra={name: value for name, value in state.items() if name not in tensors},
        trainable_only=trainable_only,
        optimizer=None if optimizer is None else optimizer.state_dict(),
        scheduler=None if scheduler is None else scheduler.state_dict(),
        rng=rng_state(),
        extra=extra,
    )


def copied(value: Any, copy_tensor: Callable[[Tensor], Tensor]) -> Any:
    """A deep copy with every tensor copied by `copy_tensor`."""
    if isinstance(value, Tensor):
        return copy_tensor(value)
    if isinstance(value, dict):
        return {key: copied(item, copy_tensor) for key, item in value.items()}
    if isinstance(value, list):
        return [copied(item, copy_tensor) for item in value]
    if isinstance(value, tuple):
        return tuple(copied(item, copy_tensor) for item in value)
    return copy.deepcopy(value)


def clone(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


class _HostCopies:
    """Copies tensors to the CPU; `wait` before reading them.

    From a CUDA device the copy goes through pinned memory behind the kernels already queued, so
    neither the GPU nor the loop waits for it; the stream's order keeps later updates out of it.
    """

    def __init__(self) -> None:
        self._devices: set[torch.device] = set()
        self._events: list[torch.cuda.Event] = []

    def copy(self, tensor: Tensor) -> Tensor:
        if tensor.device.type != "cuda":
            return tensor.detach().to("cpu", copy=True)
        self._devices.add(tensor.device)
        host = torch.empty_like(tensor, device="cpu", pin_memory=True)
        return host.copy_(tensor.detach(), non_blocking=True)

    def mark(self) -> None:
        """Note the point on each stream at which every copy so far is done."""
        for device in self._devices:
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(device))
            self._events.append(event)

    def wait(self) -> None:
        for event in self._events:
            event.synchronize()


class InMemory:
    """A snapshot that shares nothing with the model, optimizer and scheduler it came from."""

    def __init__(self, live: Snapshot) -> None:
        self._copies = _HostCopies()
        parts = {name: copied(part, self._copies.copy) for name, part in vars(live).items()}
        self._snapshot = replace(live, **parts)
        self._copies.mark()

    def read(self) -> Snapshot:
        self._copies.wait()
        return self._snapshot
