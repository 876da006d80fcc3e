"""Tables for people: in a terminal, in a file or a pipe, and in Markdown."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

PLAIN_WIDTH = 200  # columns where nobody says how wide the reader's window is
Rows = Sequence[Sequence[str]]


def show(
    header: Sequence[str],
    rows: Rows,
    *,
    title: str = "",
    words: Collection[str] = (),
    console: Console,
) -> None:
    """Print a table; without colours and frames where the console is no terminal.

    The first column and those of `words` are set flush left, the others, of numbers, flush right.
    """
    style = box.SIMPLE_HEAD if console.is_terminal else None
    table = Table(title=title or None, title_justify="left", box=style, pad_edge=False)
    for index, name in enumerate(header):
        side: Literal["left", "right"] = (
            "right" if index and len(header) > 2 and name not in words else "left"
        )
        table.add_column(name, justify=side, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def console() -> Console:
    """Standard output as a Rich console that neither marks up nor wraps plain text."""
    out = Console(highlight=False, markup=False)
    return out if out.is_terminal else Console(highlight=False, markup=False, width=PLAIN_WIDTH)


def markdown(header: Sequence[str], rows: Rows) -> str:
    """The same as a Markdown table, numbers to the right."""
    alignments = ["---"] + ["---:"] * (len(header) - 1)
    lines = [header, alignments, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float, digits: int, unit: str = "") -> str:
    """Fixed digits; a dash where it is not known."""
    return f"{value:.{digits}f}{unit}" if math.isfinite(value) else "–"


def share(value: float) -> str:
    """A share in per cent; a dash where it is not known."""
    return f"{value:.0%}" if math.isfinite(value) else "–"


def clean(value: Any) -> Any:
    """`value` as JSON knows it: NaN and infinity become null, numpy's scalars Python's."""
    if isinstance(value, Mapping):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
