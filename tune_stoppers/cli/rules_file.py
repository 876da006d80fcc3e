"""The rules of `compare --rules FILE.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_stoppers.cli.shell import UsageError, mistakes

if TYPE_CHECKING:
    from tune_stoppers.recorded.sweep import Sweep


def read_rules(path: Path, sweeps: list[Sweep]) -> dict[str, Callable[[Sweep], Any]]:
    """The rules of a TOML file as factories, each tried on every sweep at once."""
    with path.open("rb") as file:
        rules = tomllib.load(file).get("rules")
    if not isinstance(rules, dict) or not rules:
        raise UsageError(f"--rules: {path} needs a table [rules] with NAME = 'EXPRESSION' lines.")
    factories = {}
    for name, described in rules.items():
        with mistakes(f"--rules: {name}"):
            factories[name] = _factory(described)
            for sweep in sweeps:
                factories[name](sweep)
    return factories


def _factory(described: Any) -> Callable[[Sweep], Any]:
    """What builds the rule that a line of the TOML file describes."""
    from tune_stoppers.backtest.named import build, kind_of

    if isinstance(described, str):
        scheduled = kind_of(described) == "scheduler"
        described = {"scheduler" if scheduled else "stop": described}
    if not isinstance(described, dict) or not set(described) <= {"stop", "scheduler"}:
        raise ValueError(f"needs an expression, or stop = … and scheduler = …, got {described!r}.")
    stop, scheduler = described.get("stop"), described.get("scheduler")
    return lambda sweep: (
        None if scheduler is None else build(scheduler, sweep, "scheduler"),
        None if stop is None else build(stop, sweep, "stopper"),
    )
