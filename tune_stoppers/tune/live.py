"""What lives only in the process that runs a sweep, and is left out of what Ray pickles."""

from collections.abc import Mapping
from typing import Any


class Live:
    """Base of the one object in which a stopper or a scheduler keeps such things.

    Its owner leaves it out of `__getstate__` as a whole and makes a new one in `__setstate__`: it
    is then as it was constructed. What happened since is on the experiment's storage.
    """


def without_live(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of an object, but for those that are `Live`."""
    return {name: value for name, value in attributes.items() if not isinstance(value, Live)}
