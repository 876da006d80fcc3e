"""The stub that type checkers read says what the classes take."""

import ast
import inspect
from collections.abc import Mapping
from typing import Any, Literal

import pytest

from tune_stoppers.tune.stoppers import named
from tune_stoppers.tune.stoppers.signatures import COMMAND, STUB, stub, type_text


def test_the_stub_is_up_to_date() -> None:
    """Whoever changes a rule's parameters, or their documentation, writes it anew."""
    assert STUB.read_text(encoding="utf-8") == stub(), f"named.pyi is behind: run {COMMAND}"


def test_the_stub_has_what_python_takes() -> None:
    """Read as a type checker does: the same names, in the same order, required or not."""
    classes = {n.name: n for n in ast.parse(stub()).body if isinstance(n, ast.ClassDef)}
    assert "PatienceStopper" in classes
    for name, node in classes.items():
        (init,) = (n for n in node.body if isinstance(n, ast.FunctionDef))
        taken = inspect.signature(getattr(named, name)).parameters
        assert [a.arg for a in [*init.args.args[1:], *init.args.kwonlyargs]] == list(taken)
        optional = [a is not None for a in init.args.kw_defaults]
        keyword = [p.default is not p.empty for p in taken.values() if p.kind is p.KEYWORD_ONLY]
        assert optional == keyword


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (int | Mapping[float, int], "int | Mapping[float, int]"),
        (Literal["a", "b"] | None, 'Literal["a", "b"] | None'),
        (tuple[Any, ...], "tuple[Any, ...]"),
        (Mapping[str, Mapping[str, Any]], "Mapping[str, Mapping[str, Any]]"),
    ],
)
def test_a_type_is_written_as_people_write_it(kind: Any, text: str) -> None:
    """Without module names."""
    assert type_text(kind) == text
