"""Configurations as points: what a model of them computes with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
MOST_VALUES = 30  # a category with more, and with more than half as many as there are trials, is
SHARE = 0.5  # a name rather than a hyperparameter
APART = 0.7  # between two categories: as far apart as numbers that differ by this share of ranks
DECADES = 8.0  # positive numbers whose largest is so many times the smallest count by logarithms
FARTHEST = 3.0  # how far beyond 0 or 1 a number outside the range known may be


class Points(NamedTuple):
    """Configurations, a row each."""

    rows: Floats  # (configurations, columns), about in [0, 1]
    groups: npt.NDArray[np.intp]  # the hyperparameter that each column belongs to
    names: tuple[str, ...]  # of the hyperparameters


def points_of(configs: Sequence[Mapping[str, Any]]) -> Points:
    """The configurations as points; only what differs between them counts."""
    return Encoding(configs).points(configs)


class Encoding:
    """How configurations become points, learnt from some of them: only what differs counts.

    A number becomes its mid-rank among the configurations known, divided by how many have it:
    scaled alike whether it was sampled uniformly, log-uniformly or from a list. One outside their
    range lies as far outside of [0, 1] as it is away, in units of the range (of logarithms, where
    the range spans a factor of 8). Anything else is a category, a column for each value; a value
    not known is as far from one as from the other. A hyperparameter that some configurations lack
    (a conditional one) has a column that says so, and stands in the middle where it is missing.
    Nested dictionaries are read through. Texts that are nearly all different are names, and left
    out; so are columns that repeat one another.
    """

    def __init__(self, known: Sequence[Mapping[str, Any]]) -> None:
        flat = [dict(_flat(config)) for config in known]
        kept: dict[bytes, tuple[_Column, str]] = {}
        for name in dict.fromkeys(name for config in flat for name in config):
            values = [config.get(name) for config in flat]
            for column in _columns(values):
                kept.setdefault(column(values).tobytes(), (column, name))
        self._columns = list(kept.values())
        self.names = tuple(dict.fromkeys(name for _, name in self._columns))
        groups = [self.names.index(name) for _, name in self._columns]
        self.groups = np.array(groups, dtype=np.intp)

    def points(self, configs: Sequence[Mapping[str, Any]]) -> Points:
        """The points of any configurations."""
        flat = [dict(_flat(config)) for config in configs]
        rows = np.zeros((len(configs), len(self._columns)))
        for number, (column, name) in enumerate(self._columns):
            rows[:, number] = column([config.get(name) for config in flat])
        return Points(rows, self.groups, self.names)


class Encoder:
    """`points_of`, made anew only if there are other configurations than the last time."""

    def __init__(self) -> None:
        self._points = points_of([])
        self._of: list[Mapping[str, Any]] = []  # the configurations that the points are of

    def __call__(self, configs: Sequence[Mapping[str, Any]]) -> Points:
        """The points of these configurations, known by identity."""
        row_of = {id(config): row for row, config in enumerate(self._of)}
        if row_of.keys() != {id(config) for config in configs}:
            self._points, self._of = points_of(configs), list(configs)
            row_of = {id(config): row for row, config in enumerate(configs)}
        rows = [row_of[id(config)] for config in configs]
        return self._points._replace(rows=self._points.rows[rows])


def _flat(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}/")
        else:
            yield f"{path}{key}", value


class _Column(Protocol):
    def __call__(self, values: Sequence[Any]) -> Floats: ...


def _columns(values: Sequence[Any]) -> Iterator[_Column]:
    """The columns of one hyperparameter, none if it does not differ."""
    there = [value for value in values if not _is_missing(value)]
    numbers = [number for number in map(_number, there) if number is not None]
    if len(numbers) == len(there):
        if len(set(numbers)) > 1:
            yield _MidRank(numbers)
        if 0 < len(there) < len(values):
            yield _Presence()
        return
    texts = [repr(value) for value in values]
    distinct = sorted(set(texts))
    if len(distinct) > max(MOST_VALUES, SHARE * len(texts)):
        return
    for text in distinct if len(distinct) > 2 else distinct[1:]:
        yield _Category(text, distinct)


class _MidRank:
    """Mid-ranks among numbers."""

    def __init__(self, numbers: Sequence[float]) -> None:
        self._known = np.sort(numbers)
        positive = self._known[0] > 0 and self._known[-1] >= DECADES * self._known[0]
        self._scaled: Callable[[Floats], Floats] = np.log if positive else np.asarray

    def __call__(self, values: Sequence[Any]) -> Floats:
        numbers = [None if _is_missing(value) else _number(value) for value in values]
        asked = np.array([math.nan if each is None else each for each in numbers], dtype=float)
        below = np.searchsorted(self._known, asked, "left")
        through = np.searchsorted(self._known, asked, "right")
        ranks = (below + through) / 2 / len(self._known)
        low, high = self._known[0], self._known[-1]
        for edge, outside, sign in ((low, asked < low, -1), (high, asked > high, 1)):
            if outside.any():
                ranks[outside] += sign * self._beyond(asked[outside], edge)
        return np.where(np.isnan(asked), 0.5, ranks)

    def _beyond(self, asked: Floats, edge: float) -> Floats:
        """How far the numbers are from an edge of the range known, in units of the range."""
        with np.errstate(divide="ignore", invalid="ignore"):
            near, low, high = self._scaled(np.array([edge, self._known[0], self._known[-1]]))
            shares = np.abs(self._scaled(asked) - near) / (high - low)
        shares = np.nan_to_num(shares, nan=FARTHEST, posinf=FARTHEST)
        return np.asarray(np.minimum(shares, FARTHEST))


class _Presence:
    """Whether it is there at all."""

    def __call__(self, values: Sequence[Any]) -> Floats:
        return np.array([0.0 if _is_missing(value) else APART for value in values])


class _Category:
    """Whether it is one value, of those known."""

    def __init__(self, text: str, known: Sequence[str]) -> None:
        self._text, self._known = text, frozenset(known)
        self._unknown = APART / len(known)

    def __call__(self, values: Sequence[Any]) -> Floats:
        texts = (repr(value) for value in values)
        of = {True: APART, False: 0.0}
        return np.array([of[t == self._text] if t in self._known else self._unknown for t in texts])


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
