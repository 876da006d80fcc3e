"""The `Args:` section of a docstring: read from one class, written into that of another."""

import inspect
import re
import textwrap
from collections.abc import Iterable, Mapping

WIDTH = 92  # of a docstring's lines, so that they fit into a stub at their indent
_ENTRY = re.compile(r"([\w, ]+): ")
_LOSS_UNITS = re.compile(r"loss units( \(for a maximised metric: negated\))?")


def args_of(kind: type) -> dict[str, str]:
    """What the docstring of `kind` says of each parameter, as one line of text.

    Parameters that are documented together, as in `lr_metric, schedule_end: …`, have the same
    text. Those of the base classes come first, and what `kind` itself says replaces it.
    """
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        found |= args_in(each.__dict__.get("__doc__") or "")
    return found


def args_in(docstring: str) -> dict[str, str]:
    """What one docstring says of each parameter."""
    found: dict[str, str] = {}
    lines = inspect.cleandoc(docstring).partition("\nArgs:\n")[2].splitlines()
    names: list[str] = []
    for line in lines:
        if not line.startswith("    "):
            break  # the section's end
        entry = None if line.startswith("     ") else _ENTRY.match(line.strip())
        if entry:
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, line.strip()[entry.end() :])
        else:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def in_metric_units(text: str) -> str:
    """What a rule says of its losses, said to somebody who gives the metric's own values."""
    return _LOSS_UNITS.sub("units of the metric", text)


def with_args(prose: str, names: Iterable[str], texts: Mapping[str, str]) -> str:
    """`prose`, a docstring, with an `Args:` section of all names that have a text at its end."""
    grouped: dict[str, list[str]] = {}
    for name in names:
        if name in texts:
            grouped.setdefault(texts[name], []).append(name)
    lines = [inspect.cleandoc(prose).partition("\nArgs:\n")[0].rstrip(), "", "Args:"]
    for text, together in grouped.items():
        lines += textwrap.wrap(
            f"{', '.join(together)}: {text}",
            WIDTH,
            initial_indent="    ",
            subsequent_indent="        ",
            break_on_hyphens=False,
            break_long_words=False,
        )
    return "\n".join(lines) + "\n"
