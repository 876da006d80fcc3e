"""The recorded configurations as a search space, and which of them is nearest to another one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from ray import tune
from ray.tune.utils import flatten_dict

from tune_stoppers.backtest.trial import nest
from tune_stoppers.recorded.sweep import Sweep
from tune_stoppers.surrogate.encoding import MOST_VALUES, SHARE

Floats = npt.NDArray[np.float64]
FEW = 10  # distinct numbers, each had by two trials or more on average: a list, not a range
SPAN = 100.0  # a range of positive numbers whose ends are further apart was searched by its log


def space_of(sweep: Sweep) -> dict[str, Any]:
    """Ray's search space that spans the recorded configurations, as for `param_space`.

    Only hyperparameters that differ between trials are in it. Numbers are log-uniform where all
    are positive and the largest is over 100 times the smallest, else uniform; integers stay
    integers. Anything else, and numbers with at most 10 distinct values that two trials or more
    share on average, is a choice, of None too where trials lack it. Texts that are nearly all
    different are names, and left out; of hyperparameters that tell the trials apart in the same
    way, the first stands for all.
    """
    columns = _columns([curve.config for curve in sweep])
    names = (alike[0] for alike in _alike({name: _axis(columns[name]) for name in columns}))
    return nest({name: _domain(columns[name]) for name in names})


class Neighbours:
    """Recorded configurations, and which of them is nearest to another one.

    The distance is Euclidean, over the hyperparameters that differ. Numbers count as ranks among
    the recorded ones, from 0 to 1 (between two of them interpolated, in the log where `space_of`
    has it); all else is 0 if equal and 1 if not, whether one lacks it included. A recorded
    configuration that lacks a number that was suggested stands in the middle of its ranks: for a
    hyperparameter that only some choices have, it is neither near nor far. Hyperparameters that
    tell the recorded ones apart in the same way count once.
    """

    def __init__(self, configs: Sequence[Mapping[str, Any]]) -> None:
        columns = _columns(configs)
        self._axes = {name: _axis(values) for name, values in columns.items()}
        self._groups = _alike(self._axes)

    def nearest(self, config: Mapping[str, Any], rows: Sequence[int]) -> int:
        """The index in `rows`, rows of the recorded ones, of the nearest; the first of equals.

        Raises ValueError if the configuration has none of the hyperparameters that differ.
        """
        flat = flatten_dict(dict(config))
        if not flat.keys() & self._axes.keys():
            raise ValueError(
                f"a searcher suggested {dict(config)!r}; none of these is a hyperparameter that "
                f"differs between the recorded trials: {', '.join(self._axes)}."
            )
        chosen = np.array(rows, dtype=np.intp)
        squares = np.zeros(len(chosen))
        for alike in self._groups:
            name = next((name for name in alike if name in flat), alike[0])
            squares += self._axes[name].squares(_plain(flat.get(name)))[chosen]
        return int(np.argmin(squares))


class _Ranks:
    """A hyperparameter of numbers."""

    def __init__(self, values: Sequence[Any]) -> None:
        self._there = np.array([value is not None for value in values])
        found = np.array([float(value) for value in values if value is not None])
        self._log = _spans(found)
        self._scale, inverse, counts = np.unique(
            self._scaled(found), return_inverse=True, return_counts=True
        )
        self._ranks = (np.cumsum(counts) - 0.5 * counts) / len(found)
        self._column = np.full(len(values), 0.5)
        self._column[self._there] = self._ranks[inverse]
        self.pattern = np.where(self._there, self._column, -1.0).tobytes()

    def squares(self, value: Any) -> Floats:
        number = _number(value)
        if number is None:
            unlike = self._there if value is None else np.ones(len(self._column))
            return unlike.astype(float)
        rank = np.interp(self._scaled(np.array(number)), self._scale, self._ranks)
        return np.asarray((self._column - rank) ** 2)

    def _scaled(self, numbers: Floats) -> Floats:
        return np.log(np.maximum(numbers, np.finfo(float).tiny)) if self._log else numbers


class _Labels:
    """A hyperparameter of anything else; None is a value like others."""

    def __init__(self, values: Sequence[Any]) -> None:
        self._labels = np.array([repr(value) for value in values])
        codes = {label: code for code, label in enumerate(dict.fromkeys(self._labels.tolist()))}
        self.pattern = repr([codes[label] for label in self._labels.tolist()]).encode()

    def squares(self, value: Any) -> Floats:
        return np.asarray(self._labels != repr(value), dtype=np.float64)


def _columns(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The values of each hyperparameter that differs, None where a configuration lacks it."""
    flat = [flatten_dict(dict(config)) for config in configs]
    columns = {}
    for name in dict.fromkeys(name for config in flat for name in config):
        values = [_plain(config.get(name)) for config in flat]
        distinct = len({repr(value) for value in values})
        if distinct == 1:
            continue
        if _numbers(values) is None and distinct > max(MOST_VALUES, SHARE * len(values)):
            continue  # a name
        columns[name] = values
    return columns


def _alike(axes: Mapping[str, _Ranks | _Labels]) -> list[list[str]]:
    """The hyperparameters, those together that tell the trials apart in the same way."""
    groups: dict[bytes, list[str]] = {}
    for name, axis in axes.items():
        groups.setdefault(axis.pattern, []).append(name)
    return list(groups.values())


def _domain(values: Sequence[Any]) -> Any:
    """The search space of one hyperparameter."""
    numbers = _numbers(values)
    if numbers is None:
        by_text = {repr(value): value for value in values}
        return tune.choice([by_text[text] for text in sorted(by_text)])
    present = [value for value in values if value is not None]
    distinct: list[Any] = sorted(set(present))
    if len(distinct) == 1 or (len(distinct) <= FEW and 2 * len(distinct) <= len(present)):
        return tune.choice(distinct + [None] * (len(present) < len(values)))
    low, high, log = distinct[0], distinct[-1], _spans(numbers)
    if all(isinstance(value, int) for value in distinct):
        return tune.lograndint(low, high + 1) if log else tune.randint(low, high + 1)
    return tune.loguniform(float(low), float(high)) if log else tune.uniform(low, high)


def _axis(values: Sequence[Any]) -> _Ranks | _Labels:
    return _Labels(values) if _numbers(values) is None else _Ranks(values)


def _numbers(values: Sequence[Any]) -> Floats | None:
    """What is there, if all of it is numbers."""
    numbers = [_number(value) for value in values if value is not None]
    return None if None in numbers else np.array(numbers, dtype=np.float64)


def _number(value: Any) -> float | None:
    """A finite number; truth values are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _spans(numbers: Floats) -> bool:
    """Whether positive numbers reach so far that they were searched by their logarithm."""
    return bool(numbers.min() > 0 and numbers.max() > SPAN * numbers.min())


def _plain(value: Any) -> Any:
    """Without numpy's types; a NaN is nothing."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and math.isnan(value) else value
