"""Configurations as points: what a model of them computes with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Floats = npt.NDArray[np.float64]
MOST_VALUES = 30  # a category with more, and with more than half as many as there are trials, is
SHARE = 0.5  # a name rather than a hyperparameter
APART = 0.7  # between two categories: as far apart as numbers that differ by this share of ranks


class Points(NamedTuple):
    """Configurations, a row each."""

    rows: Floats  # (configurations, columns), about in [0, 1]
    groups: npt.NDArray[np.intp]  # the hyperparameter that each column belongs to
    names: tuple[str, ...]  # of the hyperparameters


def points_of(configs: Sequence[Mapping[str, Any]]) -> Points:
    """The configurations as points; only what differs between them counts.

    A number becomes its mid-rank among the configurations, divided by how many have it: scaled
    alike whether it was sampled uniformly, log-uniformly or from a list. Anything else is a
    category, a column for each value. A hyperparameter that some configurations lack
    (a conditional one) has a column that says so, and stands in the middle where it is missing.
    Nested dictionaries are read through. Texts that are nearly all different are names, and left
    out; so are columns that repeat one another.
    """
    flat = [dict(_flat(config)) for config in configs]
    columns: dict[bytes, tuple[Floats, str]] = {}
    for name in dict.fromkeys(name for config in flat for name in config):
        for column in _columns([config.get(name) for config in flat]):
            columns.setdefault(column.tobytes(), (column, name))
    kept = list(columns.values())
    names = tuple(dict.fromkeys(name for _, name in kept))
    groups = np.array([names.index(name) for _, name in kept], dtype=np.intp)
    if not kept:
        return Points(np.zeros((len(configs), 0)), groups, names)
    return Points(np.column_stack([column for column, _ in kept]), groups, names)


class Encoder:
    """`points_of`, made anew only if there are other configurations than the last time."""

    def __init__(self) -> None:
        self._points = points_of([])
        self._of: list[Mapping[str, Any]] = []  # the configurations that the points are of

    def __call__(self, configs: Sequence[Mapping[str, Any]]) -> Points:
        """The points of these configurations, known by identity."""
        place = {id(config): row for row, config in enumerate(self._of)}
        if place.keys() != {id(config) for config in configs}:
            self._points, self._of = points_of(configs), list(configs)
            place = {id(config): row for row, config in enumerate(configs)}
        rows = [place[id(config)] for config in configs]
        return self._points._replace(rows=self._points.rows[rows])


def _flat(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}/")
        else:
            yield f"{path}{key}", value


def _columns(values: Sequence[Any]) -> Iterator[Floats]:
    """The columns of one hyperparameter, none if it does not differ."""
    numbers = [_number(value) for value in values]
    known = np.array([not _is_missing(value) for value in values])
    if all(number is not None for number, there in zip(numbers, known, strict=True) if there):
        found = np.array([n for n, there in zip(numbers, known, strict=True) if there])
        if len(np.unique(found)) > 1:
            column = np.full(len(values), 0.5)
            column[known] = (rankdata(found) - 0.5) / len(found)
            yield column
        if known.any() and not known.all():
            yield known.astype(float) * APART
        return
    texts = [repr(value) for value in values]
    distinct = sorted(set(texts))
    if len(distinct) > max(MOST_VALUES, SHARE * len(texts)):
        return
    for text in distinct if len(distinct) > 2 else distinct[1:]:
        yield np.array([APART if other == text else 0.0 for other in texts])


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except TypeError:  # numpy counts durations among its integers: "not a time" is no number
        return None


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, (float, np.floating)) and math.isnan(value))
