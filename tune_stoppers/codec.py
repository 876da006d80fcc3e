"""What rules remember, to JSON and back.

A trial's state (`encode`, `decode`): numbers, strings, None and (named) tuples of them, read back
by the shape of an initial state. A sweep's record (`pack`, `unpack`): dataclasses, named tuples,
lists, dicts and sets, read back by their type hints, with cattrs.

JSON has no NaN or infinity, so these travel as ``{"$float": "nan"}``; named tuples travel as
objects with their field names, so that a state written by another version is refused by name
instead of being read into the wrong fields. A record is refused if it lacks a field or has one
more, and a scheduler's state by its `RECORD_FORMAT`.
"""

import math
from collections.abc import Callable, Mapping, Set
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")
RECORD_FORMAT = 2  # of what `pack` gives; 1: each rule wrote its own
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

    Each dataclass is to have all of its fields and no others. A trial's `State` in it stays as
    `encode` gave it: only its rule knows the shape to `decode` it by. `ValueError` for whatever
    does not fit the type.
    """
    try:
        made: T = _converter().structure(data, kind)
    except Exception as error:  # cattrs lets through whatever a constructor raises
        raise ValueError(
            f"This is no {getattr(kind, '__qualname__', kind)} of this version: {error!r}"
        ) from error
    return made


@cache
def _converter() -> Any:
    from cattrs.preconf.json import make_converter  # with the first record that is read or written

    from tune_stoppers.core.decision import Decision
    from tune_stoppers.core.rule import State

    converter = make_converter(
        detailed_validation=False,
        unstruct_collection_overrides={Set: sorted},  # two equal records give the same data
    )
    converter.register_structure_hook_factory(is_dataclass, lambda kind: _whole(kind, converter))
    converter.register_structure_hook(float, _number)
    # the numbers of a decision are plain: not to look at each halves the time
    converter.register_unstructure_hook_func(lambda kind: kind == Mapping[str, Any], dict)
    converter.register_unstructure_hook(State, encode)
    converter.register_structure_hook(State, lambda data, _: data)
    plain = converter.get_structure_hook(Decision)

    def decision(data: Any, kind: Any) -> Decision:
        numbers = data["numbers"].items()
        known = {key: float(v) if v in NOT_FINITE else v for key, v in numbers}
        made: Decision = plain(data | {"numbers": known}, kind)
        return made

    converter.register_structure_hook(Decision, decision)
    return converter


def _whole(kind: Any, converter: Any) -> Callable[[Any, Any], Any]:
    """How a dataclass is read. cattrs itself would fill a missing field with its default."""
    from cattrs.gen import make_dict_structure_fn

    plain = make_dict_structure_fn(kind, converter, _cattrs_detailed_validation=False)
    names = {each.name for each in fields(kind) if each.init}

    def whole(data: Any, kind: Any) -> Any:
        if data.keys() != names:
            raise ValueError(f"{kind.__name__} has fields {sorted(data)}, expected {sorted(names)}")
        return plain(data, kind)

    return whole


def _number(value: Any, _: Any) -> float:
    """A float field's value; a whole number stays an `int`, as in the record that was written."""
    return value if isinstance(value, int) else float(value)
