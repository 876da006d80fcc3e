"""Rules as JSON data and back: what a journal says of the rule that decided.

A spec is the name of the rule's class and its parameters, rules within rules included:
`{"class": "Patience", "patience": 3, …}`. Only rules of this package can be built again.
"""

import math
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import Field, fields, is_dataclass
from functools import cache
from importlib import import_module
from typing import Any

from tune_stoppers import core, rules
from tune_stoppers.core import After, AllOf, AnyOf, AtLeast, BaseRule, Not, On

CLASS, FLOAT, PAIRS, FOREIGN = "class", "$float", "$pairs", "$foreign"
_COMBINED: dict[str, Callable[..., BaseRule]] = {  # their constructors do not take their fields
    "AnyOf": lambda children, **_: AnyOf(*children),
    "AllOf": lambda children, **_: AllOf(*children),
    "AtLeast": lambda children, k: AtLeast(k, *children),
    "Not": lambda children: Not(*children),
    "After": lambda children, step: After(step, *children),
    "On": lambda children, metric, mode, optional=False: On(
        metric, children[0], mode, optional=optional
    ),
}


def to_spec(rule: BaseRule) -> dict[str, Any]:
    """`rule` as JSON data; what JSON cannot hold is written as its `repr`."""
    kind = type(rule)
    ours = _known().get(kind.__name__) is kind
    name = kind.__name__ if ours else f"{kind.__module__}.{kind.__qualname__}"
    left_out = ("on_nonfinite",) if ours and name in _COMBINED else ()
    parameters = {
        field.name: _encode(getattr(rule, field.name))
        for field in _parameters(rule)
        if field.name not in left_out
    }
    return {CLASS: name} | parameters


def _parameters(rule: Any) -> list[Field[Any]]:
    return [field for field in fields(rule) if field.init] if is_dataclass(rule) else []


def from_spec(spec: Any) -> BaseRule:
    """The rule that `to_spec` wrote; `ValueError` if it is none of this package's."""
    if not isinstance(spec, Mapping) or not isinstance(spec.get(CLASS), str):
        raise ValueError(f"this is no rule: {spec!r}")
    name = spec[CLASS]
    kind = _known().get(name)
    if kind is None:
        raise ValueError(f"{name} is no rule of tune_stoppers {_versions_hint(name)}")
    given = {key: value for key, value in spec.items() if key != CLASS}
    build = _COMBINED.get(name, kind)
    try:
        return build(**{key: _decode(value) for key, value in given.items()})
    except (TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"{name} cannot be built from {given}: {error}") from error


def in_words(spec: Any) -> str:
    """A spec for people: the class, and the parameters that are not its defaults."""
    try:
        return _words(from_spec(spec))
    except ValueError:
        return str(spec[CLASS]) if isinstance(spec, Mapping) and CLASS in spec else "?"


def _words(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_words, value))})"
    if not isinstance(value, BaseRule) or not is_dataclass(value):
        return repr(value)
    given = [
        (field.name, getattr(value, field.name))
        for field in fields(value)
        if field.init and getattr(value, field.name) != field.default
    ]
    name = type(value).__name__
    if name in _COMBINED:
        named = dict(given)
        first = {"AtLeast": "k", "After": "step", "On": "metric"}.get(name, "")
        own = [repr(named[first])] if first in named else []
        last = [repr(value.mode)] if isinstance(value, On) else []
        last += ["optional=True"] if "optional" in named else []
        return f"{name}({', '.join([*own, *map(_words, named['children']), *last])})"
    return f"{name}({', '.join(f'{key}={_words(item)}' for key, item in given)})"


def _versions_hint(name: str) -> str:
    return "(a rule of your own cannot be run from its name)" if "." in name else "of this version"


@cache
def _known() -> dict[str, type[BaseRule]]:
    """The rules of this package, by name."""
    below = [
        import_module(module.name)
        for package in (core, rules)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]
    found = [thing for module in (rules, *below) for thing in vars(module).values()]
    return {
        thing.__name__: thing
        for thing in found
        if isinstance(thing, type) and issubclass(thing, BaseRule)
    }


def _encode(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {FLOAT: repr(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, BaseRule):
        return to_spec(value)
    if isinstance(value, (tuple, list)):
        return [_encode(item) for item in value]
    if not isinstance(value, Mapping):
        return {FOREIGN: repr(value)}
    if all(isinstance(key, str) and key[:1] != "$" and key != CLASS for key in value):
        return {key: _encode(item) for key, item in value.items()}
    return {PAIRS: [[_encode(key), _encode(item)] for key, item in value.items()]}


def _decode(data: Any) -> Any:
    if isinstance(data, list):
        return tuple(_decode(item) for item in data)
    if not isinstance(data, dict):
        return data
    if CLASS in data:
        return from_spec(data)
    if FOREIGN in data:
        raise ValueError(f"{data[FOREIGN]} was not written in full")
    if FLOAT in data:
        return float(data[FLOAT])
    if PAIRS in data:
        return {_decode(key): _decode(item) for key, item in data[PAIRS]}
    return {key: _decode(item) for key, item in data.items()}
