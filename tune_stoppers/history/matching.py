"""What an earlier sweep knows of the hyperparameters of the sweep at hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tune_stoppers.history.names import matches
from tune_stoppers.history.past_sweep import PastSweep, Value

Configs = Sequence[Mapping[str, Value]]


class Match(NamedTuple):
    """One earlier sweep beside the sweep at hand."""

    sweep: PastSweep
    names: Mapping[str, str]  # hyperparameters whose values there say something here: their names
    covered: tuple[str, ...]  # of those that vary here
    unknown: tuple[str, ...]  # vary here, and the earlier sweep has none such, or varied it not
    apart: tuple[str, ...]  # sentences: vary here, but over other values


def varying(configs: Configs) -> list[str]:
    """The hyperparameters that are not the same in all the configurations."""
    names = dict.fromkeys(name for config in configs for name in config)
    return [name for name in names if len({config.get(name) for config in configs}) > 1]


def matched(configs: Configs, sweep: PastSweep, rename: Mapping[str, str]) -> Match:
    """What `sweep` knows of the hyperparameters in `configs`.

    A hyperparameter says something if it varied in the earlier sweep, and if its values there and
    here overlap: numbers by their ranges, texts by a value that both have.
    """
    theirs = {rename.get(name, name): name for name in sweep.columns}
    here = dict.fromkeys(name for config in configs for name in config)
    vary = varying(configs)
    names, unknown, apart = {}, [], []
    means = matches(here, theirs)
    for name in here:
        column = _known(sweep.columns[theirs[means[name]]]) if name in means else []
        own = _known(config.get(name) for config in configs)
        if len(set(column)) < 2:
            if name in vary:
                unknown.append(name)
        elif _overlap(own, column):
            names[name] = theirs[means[name]]
        elif name in vary:
            apart.append(f"{name} was {_range(column)} there and is {_range(own)} here")
    covered = tuple(name for name in vary if name in names)
    return Match(sweep, names, covered, tuple(unknown), tuple(apart))


def _known(values: Iterable[Value | None]) -> list[Value]:
    return [value for value in values if value is not None]


def _overlap(one: Sequence[Value], other: Sequence[Value]) -> bool:
    mine, theirs = _bounds(one), _bounds(other)
    if mine and theirs:
        return max(mine[0], theirs[0]) <= min(mine[1], theirs[1])
    return not set(one).isdisjoint(other)


def _bounds(values: Sequence[Value]) -> tuple[float, float] | None:
    """The least and the largest, if all are numbers."""
    numbers = [value for value in values if isinstance(value, float)]
    return (min(numbers), max(numbers)) if len(numbers) == len(values) > 0 else None


def _range(values: Sequence[Value]) -> str:
    if bounds := _bounds(values):
        low, high = bounds
        return f"{low:g}" if low == high else f"{low:g} to {high:g}"
    texts = sorted({str(value) for value in values})
    return ", ".join(texts[:4]) + (", …" if len(texts) > 4 else "")
