"""The recorded configurations as a search space, and the nearest of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tune_stoppers.backtest.nearest import Neighbours, space_of
from tune_stoppers.recorded.sweep import Sweep


def sweep(configs: Sequence[dict[str, Any]]) -> Sweep:
    """A trial of one report for each of these configurations."""
    rows = [
        {"trial_id": str(n), "training_iteration": 1, "loss": 1.0}
        | {f"config/{name}": value for name, value in config.items()}
        for n, config in enumerate(configs)
    ]
    return Sweep.from_frame(pd.DataFrame(rows), metric="loss", mode="min")


def domain(values: Sequence[Any]) -> Any:
    """The domain of the hyperparameter `a` of trials with these values; None: not there."""
    configs = [{} if value is None else {"a": value} for value in values]
    space = space_of(sweep([c | {"b": n} for n, c in enumerate(configs)]))
    return space.get("a")


@pytest.mark.parametrize(
    ("values", "kind", "ends"),
    [
        ([0.1, 0.5, 0.7], "Uniform", (0.1, 0.7)),
        ([-1.0, 0.5, 900.0], "Uniform", (-1.0, 900.0)),
        ([1e-5, 1e-4, 1e-2], "LogUniform", (1e-5, 1e-2)),
        ([16, 20, 64], "Uniform", (16, 65)),
        ([1, 20, 640], "LogUniform", (1, 641)),
    ],
)
def test_a_range_is_as_wide_as_the_record(values, kind, ends):
    """Numbers that span over a factor of 100 are searched by their log; integers stay so, and
    the upper end of theirs is exclusive, as in Ray."""
    found = domain(values)
    assert type(found.sampler).__name__.strip("_") == kind
    assert (found.lower, found.upper) == pytest.approx(ends, rel=1e-12)
    assert isinstance(found.lower, int) is isinstance(values[0], int)


@pytest.mark.parametrize(
    ("values", "choices"),
    [
        (["b", "a", "b"], ["a", "b"]),
        ([True, False, True], [False, True]),
        (["b", None, "b"], ["b", None]),
        ([0.1, 0.1, 0.9, 0.9], [0.1, 0.9]),
        ([3.0, None, 3.0], [3.0, None]),
        ([1, "auto", 2], ["auto", 1, 2]),
    ],
)
def test_what_is_no_range_is_a_choice(values, choices):
    """Categories, and numbers that trials share; None where some trials lack it."""
    assert domain(values).categories == choices


def test_only_what_differs_is_searched():
    """A constant and a name of each trial are left out; nested hyperparameters stay nested."""
    configs = [{"net/width": 1.0 + n, "seed": 3, "run": f"run-{n}"} for n in range(40)]
    space = space_of(sweep(configs))
    assert [*space] == ["net"]
    assert [*space["net"]] == ["width"]


@pytest.mark.parametrize(
    ("config", "nearest"),
    [
        ({"a": 1.4, "c": "x"}, 0),
        ({"a": 1.6, "c": "x"}, 1),
        ({"a": 1000.0, "c": "x"}, 2),
        ({"a": -5, "c": "y"}, 3),  # a category that differs is as far as all the ranks
        ({"a": 90.0, "c": "y"}, 3),
        ({"a": 1.0, "c": "unknown"}, 0),
        ({"c": "y"}, 3),
    ],
)
def test_the_nearest_is_by_ranks_and_categories(config, nearest):
    """The scale of a number does not matter, only how many recorded ones lie between."""
    recorded = [
        {"a": 1.0, "c": "x"},
        {"a": 2.0, "c": "x"},
        {"a": 99.0, "c": "x"},
        {"a": 3.0, "c": "y"},
    ]
    assert Neighbours(recorded).nearest(config, range(4)) == nearest


def test_between_two_rates_the_log_decides():
    """4e-4 is nearer to 1e-3 than to 1e-4, though not by the difference."""
    recorded = [{"rate": 1e-5}, {"rate": 1e-4}, {"rate": 1e-3}, {"rate": 1e-2}]
    assert Neighbours(recorded).nearest({"rate": 4e-4}, range(4)) == 2
    assert Neighbours(recorded).nearest({"rate": -1.0}, range(4)) == 0


def test_what_a_trial_lacks_is_neither_near_nor_far():
    """A number that only one of the choices has is compared where both have it."""
    recorded = [{"by": "sgd", "m": m} for m in (0.1, 0.2, 0.3, 0.4)] + [{"by": "sgd"}]
    near = Neighbours([*recorded, {"by": "adam"}])
    assert near.nearest({"by": "sgd", "m": 0.1}, [0, 3, 4, 5]) == 0
    assert near.nearest({"by": "sgd", "m": 0.1}, [1, 4, 5]) == 0
    assert near.nearest({"by": "sgd", "m": 0.1}, [3, 4, 5]) == 1
    assert near.nearest({"by": "adam", "m": 0.1}, range(6)) == 5
    assert near.nearest({"by": "sgd", "m": None}, range(6)) == 4


def test_the_place_among_those_not_in_use():
    """Of equals, the first; nested suggestions are read through."""
    recorded = [{"n/a": 1}, {"n/a": 2}, {"n/a": 2}, {"n/a": 3}]
    near = Neighbours(recorded)
    assert near.nearest({"n": {"a": 2}}, [0, 1, 2, 3]) == 1
    assert near.nearest({"n": {"a": np.int64(2)}}, [0, 3, 2]) == 2


def test_what_says_the_same_counts_once():
    """Neither a copy nor another unit of a hyperparameter adds to the distance or to the space; a
    searcher may use either name."""
    configs = [{"a": n, "b": b, "b/kilo": b / 1000} for n, b in enumerate([0.0, 3.0, 1.0, 2.0])]
    near = Neighbours(configs)
    for name in ("b", "b/kilo"):
        unit = 1000 if name == "b/kilo" else 1
        assert near.nearest({"a": 0, name: 1.5 / unit}, range(4)) == 0
        assert near.nearest({"a": 1.4, name: 0.9 / unit}, range(4)) == 2
    both = {"a": 0, "b": 1.1, "b/kilo": 0.0011}
    assert near.nearest(both, [1, 2]) == near.nearest({"a": 0, "b": 1.1}, [1, 2])
    assert [*space_of(sweep([c | {"c": c["b"]} for c in [{"b": 1}, {"b": 2}]]))] == ["b"]
