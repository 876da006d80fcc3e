"""What rules remember, to JSON and back.

A trial's state (`encode`, `decode`): numbers, strings, None and (named) tuples of them, read back
by the shape of an initial state. A sweep's record (`pack`, `unpack`): dataclasses, named tuples,
lists, dicts and sets, read back by their type hints, with cattrs.

JSON has no NaN or infinity, so these travel as ``{"$float": "nan"}``; named tuples travel as
objects with their field names, so that a state written by another version is refused by name
instead of being read into the wrong fields.
"""

import math
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")
NOT_FINITE = ("inf", "-inf", "nan")  # as the journal writes numbers that JSON lacks


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


def pack(value: Any) -> Any:
    """A record as JSON data, except that floats that JSON lacks stay floats."""
    return _converter().unstructure(value)


def unpack(data: Any, kind: type[T]) -> T:
    """The record of type `kind` that `pack` gave; "inf", "-inf" and "nan" are read as floats.

    Whatever does not fit the type raises, a cattrs error or a `ValueError`.
    """
    made: T = _converter().structure(data, kind)
    return made


@cache
def _converter() -> Any:
    from cattrs.preconf.json import make_converter  # with the first record that is read or written

    from tune_stoppers.core.decision import Decision

    converter = make_converter(detailed_validation=False)
    converter.register_structure_hook(float, lambda value, _: float(value))
    plain = converter.get_structure_hook(Decision)

    def decision(data: Any, kind: Any) -> Decision:
        numbers = data["numbers"].items()
        known = {key: float(v) if v in NOT_FINITE else v for key, v in numbers}
        made: Decision = plain(data | {"numbers": known}, kind)
        return made

    converter.register_structure_hook(Decision, decision)
    return converter
