"""Stoppers written as text: what is understood, and that nothing is evaluated."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_stoppers.expressions import ExpressionError, parse


@dataclass
class Made:
    """Remembers how it was called and combined."""

    text: str

    def __or__(self, other: "Made") -> "Made":
        return Made(f"({self.text} | {other.text})")

    def __and__(self, other: "Made") -> "Made":
        return Made(f"({self.text} & {other.text})")


def patience(metric: str, mode: str = "?", *, patience: Any = 5) -> Made:
    return Made(f"P({metric},{mode},{patience})")


def divergence(metric: str) -> Made:
    return Made(f"D({metric})")


KNOWN = {"Patience": patience, "Divergence": divergence}


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("Patience()", "P(loss,min,5)"),
        ("Patience", "P(loss,min,5)"),
        (" Patience(patience=3)\n", "P(loss,min,3)"),
        ("Patience(patience={0: 5, 100: 2})", "P(loss,min,{0: 5, 100: 2})"),
        ("Patience('acc', 'max')", "P(acc,max,5)"),
        ("Patience(mode='max', patience=-1)", "P(loss,max,-1)"),
        ("Divergence()", "D(loss)"),
        ("Patience() | Divergence()", "(P(loss,min,5) | D(loss))"),
        ("Patience & (Divergence | Patience)", "(P(loss,min,5) & (D(loss) | P(loss,min,5)))"),
    ],
)
def test_expression_is_built(text: str, made: str) -> None:
    """Calls, bare names, `|`, `&` and brackets; metric and mode are filled in where taken."""
    assert parse(text, KNOWN, metric="loss", mode="min").text == made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Patienc()", r"Unknown name 'Patienc'. Did you mean 'Patience'\? Known: Divergence, Pat"),
        ("__import__('os').system('true')", "is not understood"),
        ("Patience(patience=__import__('os'))", "is no literal"),
        ("Patience(patience=1 + x)", "is no literal"),
        ("Patience(**{'patience': 1})", r"\*\* is not understood"),
        ("Patience() + Divergence()", "is not understood"),
        ("[Patience()]", "is not understood"),
        ("", "is no expression"),
        ("Patience(", "is no expression"),
        ("Patience() | " * 2000 + "Patience()", "at most"),
        ("(" * 3000, "is no expression"),
    ],
)
def test_everything_else_is_refused(text: str, message: str) -> None:
    """What is no call of a known name with literals is one clear error."""
    with pytest.raises(ExpressionError, match=message):
        parse(text, KNOWN, metric="loss", mode="min")


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.text(alphabet="Patience()|&=,'{}[]0.5 \\x__import__", max_size=60))
def test_any_text_is_built_or_refused(text: str) -> None:
    """No text does anything but build known things or raise the two errors that say why."""
    try:
        made = parse(text, KNOWN, metric="loss", mode="min")
    except (ExpressionError, TypeError):
        return
    assert isinstance(made, Made)


def on(metric: str, rule: Made, mode: str) -> Made:
    return Made(f"O({metric},{rule.text},{mode})")


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("On('kl', Patience, 'max')", "O(kl,P(kl,max,5),max)"),
        ("On('kl', rule=Patience(patience=2), mode='max')", "O(kl,P(kl,max,2),max)"),
        ("On('kl', Patience() | Divergence(), 'max')", "O(kl,(P(kl,max,5) | D(kl)),max)"),
        ("Patience | On('kl', Patience('x'), 'max')", "(P(loss,min,5) | O(kl,P(x,max,5),max))"),
        ("On('a', On('b', Patience, 'max') & Patience, 'min')",
         "O(a,(O(b,P(b,max,5),max) & P(a,min,5)),min)"),
    ],
)  # fmt: skip
def test_an_argument_may_be_an_expression(text: str, made: str) -> None:
    """What a call says of metric and mode holds within it, and no further."""
    assert parse(text, KNOWN | {"On": on}, metric="loss", mode="min").text == made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("On('kl', Patienc(), 'max')", "'Patienc.*' is no literal; .* or calls of known names"),
        ("On('kl', Patience + 1, 'max')", "is no literal"),
        ("On('kl', Patience | Patienc, 'max')", "Unknown name 'Patienc'. Did you mean"),
        ("On('kl', Patience | 3, 'max')", "'3' is not understood"),
    ],
)
def test_what_is_no_expression_is_no_argument(text: str, message: str) -> None:
    """With the part that was not understood."""
    with pytest.raises(ExpressionError, match=message):
        parse(text, KNOWN | {"On": on}, metric="loss", mode="min")
