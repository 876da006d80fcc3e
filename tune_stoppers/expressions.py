"""Rules, stoppers and schedulers written as text: `Patience(3) | On("kl", Patience(2), "min")`.

Only calls of known names, joined with `|` and `&` and bracketed, are understood, with arguments
that are literals or such calls again; nothing is evaluated.
"""

import ast
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tune_stoppers.metrics import closest

DICT = "{}"  # the known name of what makes an object of a dict
MAX_LENGTH = 10_000  # characters; beyond that a text is no expression that somebody typed


class Maker(NamedTuple):
    """A callable that is given no defaults but those that it names, which no text can write."""

    make: Callable[..., Any]
    given: tuple[str, ...] = ()


Known = Mapping[str, Callable[..., Any] | Maker]


class ExpressionError(ValueError):
    """A text that is no expression of known names with literal arguments."""


def parse(text: str, known: Known, **defaults: Any) -> Any:
    """The object that `text` describes.

    Args:
        text: a dict literal in it is handed to the callable known as "{}", if there is one.
        known: the names that may be called, or named alone, which calls them without arguments.
        defaults: keywords filled in where a call leaves them out and the callee takes them
            (metric and mode, say). A function among them makes the value out of the keywords of
            the call, where the callee has a parameter of that name. Within a call that gives one
            of them itself, that one holds: what is in `On("kl", …, "max")` has the metric "kl"
            and the mode "max".

    `ExpressionError` shows what was not understood and, for a name, lists the known ones. Errors
    of the called constructors come through as they are.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"An expression of {len(text)} characters; at most {MAX_LENGTH}.")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"{_short(text)!r} is no expression: {error}.") from error
    try:
        return _build(tree.body, known, defaults)
    except RecursionError as error:
        raise ExpressionError(f"{_short(text)!r} is no expression: {error}.") from error


def _build(node: ast.expr, known: Known, defaults: Mapping[str, Any]) -> Any:
    match node:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _build(left, known, defaults) | _build(right, known, defaults)
        case ast.BinOp(left=left, op=ast.BitAnd(), right=right):
            return _build(left, known, defaults) & _build(right, known, defaults)
        case ast.Name(id=name):
            return _call(_find(name, known), [], {}, defaults)
        case ast.Dict() if DICT in known:
            return _call(known[DICT], [_literal(node)], {}, {})
        case ast.Lambda():
            raise ExpressionError(
                f"{_short(ast.unparse(node))!r} is a function, and a text is never run; combine "
                "functions in Python, or write a dict of limits."
            )
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            made = _find(name, known)
            values = {_keyword(k): k.value for k in keywords}
            if len(values) < len(keywords):
                raise ExpressionError(f"{_short(ast.unparse(node))!r} gives a keyword twice.")
            inner = {**defaults, **_given(made, args, values, defaults)}
            return _call(
                made,
                [_argument(arg, known, inner) for arg in args],
                {name: _argument(value, known, inner) for name, value in values.items()},
                defaults,
            )
    names = ", ".join(sorted(set(known) - {DICT}))
    limits = " or {'training_iteration': 100}," if DICT in known else ""
    raise ExpressionError(
        f"{_short(ast.unparse(node))!r} is not understood: write NAME(keyword=value),{limits} "
        f"joined with | and &. Known names: {names}."
    )


def _find(name: str, known: Known) -> Callable[..., Any] | Maker:
    if name in known:
        return known[name]
    names = sorted(set(known) - {DICT})
    raise ExpressionError(
        f"Unknown name {name!r}.{closest(name, names)} Known: {', '.join(names)}."
    )


def _keyword(keyword: ast.keyword) -> str:
    if keyword.arg is None:
        raise ExpressionError("** is not understood; write out each keyword.")
    return keyword.arg


def _argument(node: ast.expr, known: Known, defaults: Mapping[str, Any]) -> Any:
    """A literal, or what a call of a known name makes."""
    match node:
        case ast.Call(func=ast.Name(id=name)) | ast.Name(id=name) if name in known:
            return _build(node, known, defaults)
        case ast.BinOp(op=ast.BitOr() | ast.BitAnd()):
            return _build(node, known, defaults)
    return _literal(node)


def _given(
    made: Callable[..., Any] | Maker,
    args: list[ast.expr],
    named: Mapping[str, ast.expr],
    defaults: Mapping[str, Any],
) -> dict[str, Any]:
    """Those of `defaults` that a call gives itself, as literals."""
    called = made.make if isinstance(made, Maker) else made
    given = {**dict(zip(inspect.signature(called).parameters, args, strict=False)), **named}
    return {
        name: ast.literal_eval(node)
        for name, node in given.items()
        if name in defaults and isinstance(node, ast.Constant)
    }


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError) as error:
        text = _short(ast.unparse(node))
        raise ExpressionError(
            f"{text!r} is no literal; arguments are numbers, strings, True, False, None, "
            "lists, tuples and dicts of them, or calls of known names."
        ) from error


def _call(
    made: Callable[..., Any] | Maker,
    args: list[Any],
    named: dict[str, Any],
    defaults: Mapping[str, Any],
) -> Any:
    if isinstance(made, Maker):
        for name in set(named) & set(made.given):
            raise ExpressionError(f"{name}={named[name]!r} has no place in this call.")
        return made.make(*args, **named, **{name: defaults[name] for name in made.given})
    taken = inspect.signature(made).parameters
    given = set(list(taken)[: len(args)]) | set(named)
    anything = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    filled = {
        name: value
        for name, value in defaults.items()
        if name not in given and (name in taken or (anything and not callable(value)))
    }
    worked_out = {k: v(named) if callable(v) else v for k, v in filled.items()}
    return made(*args, **named, **worked_out)


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "…"
