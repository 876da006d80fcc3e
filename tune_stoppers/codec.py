"""Rule state to JSON and back: numbers, strings, None and (named) tuples of them.

JSON has no NaN or infinity, so these travel as ``{"$float": "nan"}``; named tuples travel as
objects with their field names, so that a state written by another version is refused by name
instead of being read into the wrong fields.
"""

import math
from typing import Any


def encode(value: Any) -> Any:
    """`value` as JSON data. `TypeError` for anything but plain data."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, tuple):
        fields = getattr(value, "_fields", None)
        if fields is not None:
            return {name: encode(item) for name, item in zip(fields, value, strict=True)}
        return [encode(item) for item in value]
    raise TypeError(f"Rule state holds numbers, strings, None and tuples, got {type(value)!r}.")


def decode(data: Any, like: Any) -> Any:
    """The value that `encode` wrote as `data`; `like` is an initial state with its shape.

    `ValueError` names fields that are missing or unknown.
    """
    if isinstance(data, dict) and set(data) == {"$float"}:
        return float(data["$float"])
    fields = getattr(like, "_fields", None)
    if isinstance(data, dict):
        if fields is None or set(data) != set(fields):
            expected = sorted(fields or ())
            raise ValueError(f"Rule state has fields {sorted(data)}, expected {expected}.")
        return type(like)(**{name: decode(data[name], getattr(like, name)) for name in fields})
    if isinstance(data, list):
        if fields is not None:
            raise ValueError(f"Rule state is a list, expected fields {sorted(fields)}.")
        shapes = like if isinstance(like, tuple) and len(like) == len(data) else [None] * len(data)
        return tuple(decode(item, shape) for item, shape in zip(data, shapes, strict=True))
    if fields is not None:
        raise ValueError(f"Rule state is {data!r}, expected fields {sorted(fields)}.")
    return data
