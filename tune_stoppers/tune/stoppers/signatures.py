"""`named.pyi`: the named stoppers as type checkers and editors see them, which run no code.

`python -m tune_stoppers.tune.stoppers.signatures` writes it anew. A test fails while it is behind
the rules.
"""

import inspect
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from tune_stoppers.tune.stoppers import named
from tune_stoppers.tune.stoppers.of_rule import StopperOfRule

STUB = Path(__file__).with_name("named.pyi")
COMMAND = "python -m tune_stoppers.tune.stoppers.signatures"
_TOP = f'''"""Written by `{COMMAND}`: change the rules, not it."""

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any, Literal

from tune_stoppers.tune.stoppers.base import RuleStopper as RuleStopper
from tune_stoppers.tune.stoppers.combinators import AllOf as AllOf
from tune_stoppers.tune.stoppers.combinators import AnyOf as AnyOf
from tune_stoppers.tune.stoppers.of_rule import StopperOfRule
'''


def stub() -> str:
    """The text of `named.pyi`, as the rules and the named stoppers are now."""
    kinds = (value for value in vars(named).values() if isinstance(value, type))
    stoppers = {kind for kind in kinds if issubclass(kind, StopperOfRule)} - {StopperOfRule}
    return "\n".join([_TOP, *map(_class, sorted(stoppers, key=lambda kind: kind.__name__))])


def _class(kind: type[StopperOfRule]) -> str:
    doc = inspect.getdoc(kind) or ""
    indented = "\n".join(f"    {line}" if line else "" for line in doc.splitlines())
    lines = [f"class {kind.__name__}(StopperOfRule):", f'    """{indented.lstrip()}', '    """', ""]
    lines += ["    def __init__(", "        self,"]
    keywords = False
    for key, parameter in inspect.signature(kind).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and not keywords:
            keywords = True
            lines.append("        *,")
        has_default = parameter.default is not parameter.empty
        default = f" = {_literal(parameter.default)}" if has_default else ""
        lines.append(f"        {key}: {type_text(parameter.annotation)}{default},")
    return "\n".join([*lines, "    ) -> None: ...", ""])


def type_text(kind: Any) -> str:
    """A type as one writes it: `Mapping[float, int] | None`."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"Literal[{', '.join(map(_literal, args))}]"
    if origin in (Union, types.UnionType):
        return " | ".join(map(type_text, args))
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(type_text, args))}]"
    if kind in (None, type(None)):
        return "None"
    if kind is Ellipsis:
        return "..."
    return str(getattr(kind, "__name__", kind))


def _literal(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


if __name__ == "__main__":
    STUB.write_text(stub(), encoding="utf-8")
