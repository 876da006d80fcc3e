"""Docstrings and signatures for mkdocstrings, which reads code without running it.

Schedulers get the keywords behind `**common`, as `help` shows them; what is said of several
parameters together is said of each; a lone `::`, which announces an example, is left out.
"""

import re
import sys
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).parents[2]))
from tune_stoppers.tune.parameter_docs import args_in, with_args

LONE = re.compile(r"^ *::\n", flags=re.MULTILINE)
TOGETHER = re.compile(r"    \w+(, \w+)+: ")
INLINE = re.compile(r"(?<=\w)::$", flags=re.MULTILINE)


class Docstrings(griffe.Extension):
    """Changes what griffe has read of the package."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Once all of it is known."""
        base = pkg["tune.schedulers.base.SweepScheduler"]
        for module in pkg["tune.schedulers"].modules.values():
            for kind in module.classes.values():
                if not kind.is_alias and kind is not base:
                    spell_out(kind, base)
        for each in walk(pkg):
            if each.docstring:
                text = LONE.sub("", each.docstring.value)
                each.docstring.value = apart(INLINE.sub(":", text))


def spell_out(kind: griffe.Class, base: griffe.Class) -> None:
    """In place of `**common` the keywords of `base`, each with its text."""
    init = kind.members.get("__init__")
    if init is None or "common" not in init.parameters:
        return
    own = [parameter for parameter in init.parameters if parameter.name != "common"]
    names = {parameter.name for parameter in own}
    common = [
        parameter
        for parameter in base.members["__init__"].parameters
        if parameter.kind is griffe.ParameterKind.keyword_only and parameter.name not in names
    ]
    init.parameters = griffe.Parameters(*own, *common)
    if kind.docstring and base.docstring:
        texts = args_in(base.docstring.value) | args_in(kind.docstring.value)
        shown = [parameter.name for parameter in init.parameters]
        kind.docstring.value = with_args(kind.docstring.value, shown, texts)


def apart(docstring: str) -> str:
    """`metric, mode: text` in `Args:` as two entries, so that each is found in the signature."""
    lines: list[str] = []
    entry: list[str] = []  # of several parameters, while it is read
    for line in [*docstring.splitlines(), ""]:
        if entry and not line.startswith("     "):
            names, _, text = entry[0].strip().partition(": ")
            for name in names.split(", "):
                lines += [f"    {name}: {text}", *entry[1:]]
            entry = []
        if TOGETHER.match(line):
            entry = [line]
        elif entry:
            entry.append(line)
        else:
            lines.append(line)
    return "\n".join(lines)


def walk(parent: Any) -> Any:
    """Everything below `parent` that is not an alias."""
    for member in parent.members.values():
        if not member.is_alias:
            yield member
            yield from walk(member)
