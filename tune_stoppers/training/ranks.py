"""Data parallel: what rank 0 decides, every rank does.

Ranks that leave a loop at different steps hang: those that stay wait for the others' gradients.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar("T")


def is_first() -> bool:
    """Whether this process is rank 0, or the only one."""
    return not _are_several() or dist.get_rank() == 0


def agreed(decide: Callable[[], T]) -> T:
    """What `decide` gives on rank 0, which alone calls it, as a copy on every other rank.

    Every rank of the default process group must call this, in the same order; without one it is
    just `decide()`. Where `decide` raises, the other ranks raise `RuntimeError` with its message.
    """
    if not _are_several():
        return decide()
    told: list[Any] = [None, None]  # the value, or what went wrong
    if is_first():
        try:
            told[0] = decide()
        except Exception as error:
            dist.broadcast_object_list([None, f"{type(error).__name__}: {error}"], src=0)
            raise
    dist.broadcast_object_list(told, src=0)
    value, problem = told
    if problem is not None:
        raise RuntimeError(f"rank 0 could not decide: {problem}")
    agreed_value: T = value
    return agreed_value


def _are_several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
