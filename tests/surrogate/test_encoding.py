"""Configurations as points: alike where they are alike, whatever their scales and kinds."""

import numpy as np
import pytest

from tune_stoppers.surrogate.encoding import Encoding, points_of


def column(points, name):
    return points.rows[:, points.groups == points.names.index(name)]


def test_numbers_become_ranks() -> None:
    """A learning rate counts the same whether it was sampled uniformly or log-uniformly."""
    rates = [1e-5, 1e-1, 1e-3, 1e-4]
    points = points_of([{"lr": rate} for rate in rates])
    logs = points_of([{"lr": np.log(rate)} for rate in rates])
    assert column(points, "lr").ravel().tolist() == [0.125, 0.875, 0.625, 0.375]
    assert (points.rows == logs.rows).all()


def test_categories_are_equally_far_apart() -> None:
    """Texts, booleans and lists have no order."""
    points = points_of([{"name": name} for name in ("a", "b", "c")])
    gaps = [np.linalg.norm(points.rows[i] - points.rows[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert gaps == pytest.approx([gaps[0]] * 3)
    assert points_of([{"on": True}, {"on": False}]).rows.shape == (2, 1)
    assert points_of([{"layers": [1, 2]}, {"layers": [3]}]).rows.shape == (2, 1)


def test_a_conditional_hyperparameter_stands_in_the_middle_where_it_is_missing() -> None:
    """And a column of its own says whether it is there."""
    points = points_of([{"momentum": 0.5}, {"momentum": 0.9}, {}, {"momentum": None}])
    assert points.names == ("momentum",)
    assert points.rows.shape == (4, 2)
    assert points.rows[2:, 0].tolist() == [0.5, 0.5]
    assert (points.rows[:2, 1] != points.rows[2:, 1]).all()


def test_what_does_not_differ_or_is_a_name_is_left_out() -> None:
    """A constant, a repeated column, a name that is different for every trial."""
    configs = [{"lr": i, "twice": 2 * i, "model": "x", "run": f"run-{i}"} for i in range(40)]
    assert points_of(configs).names == ("lr",)
    assert points_of([{"model": "x"}] * 3).rows.shape == (3, 0)
    assert points_of([]).rows.shape == (0, 0)


def test_nested_odd_and_huge_values_are_read() -> None:
    """Nested dictionaries, infinities, integers beyond a float, NaN for missing."""
    configs = [
        {"opt": {"lr": 0.1}, "n": 10**400},
        {"opt": {"lr": 0.2}, "n": 5},
        {"opt": {"lr": float("nan")}, "n": float("-inf")},
    ]
    points = points_of(configs)
    assert points.names == ("opt/lr", "n")
    assert np.isfinite(points.rows).all()
    assert column(points, "n").ravel().tolist() == sorted(column(points, "n").ravel())[::-1]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_nan_is_missing_whatever_its_type(kind) -> None:
    """A NaN of numpy's other floats does not spoil the column of all the trials."""
    points = points_of([{"lr": kind("nan")}, {"lr": kind(1)}, {"lr": kind(2)}])
    assert column(points, "lr")[:, 0].tolist() == [0.5, 0.25, 0.75]


def test_what_numpy_counts_among_the_numbers_and_is_none_is_a_category() -> None:
    """A duration that is not a time, a complex number."""
    hours = [np.timedelta64(1, "h"), np.timedelta64(2, "h"), np.timedelta64("NaT")]
    assert points_of([{"wait": value} for value in hours]).rows.shape == (3, 3)
    assert points_of([{"root": value} for value in np.array([1j, 1, 2])]).rows.shape == (3, 3)


def test_configurations_that_were_not_known_are_put_among_those_that_were() -> None:
    """In between by rank; outside of the range as far as they are away, by factors for a rate."""
    known = [{"lr": rate, "depth": depth} for rate, depth in ((1e-4, 1), (1e-3, 3), (1e-2, 2))]
    points = Encoding(known).points(
        [*known, {"lr": 2e-3, "depth": 2}, {"lr": 1e-1, "depth": 0}, {"lr": 1e-8, "depth": 1e6}]
    )
    assert (points.rows[:3] == points_of(known).rows).all()
    assert column(points, "lr")[3:].ravel() == pytest.approx([2 / 3, 1.5, -2])
    assert column(points, "depth")[3:].ravel() == pytest.approx([0.5, -0.5, 4])


def test_what_was_not_known_is_no_nearer_to_one_category_than_to_another() -> None:
    """A third value of two, a hyperparameter that is missing, a word for a number."""
    known = [{"kind": "a", "lr": 0.1}, {"kind": "b", "lr": 0.2}]
    points = Encoding(known).points([*known, {"kind": "c", "lr": "auto"}, {}])
    kinds = column(points, "kind").ravel()
    assert abs(kinds[2] - kinds[0]) == abs(kinds[2] - kinds[1])
    assert column(points, "lr")[2:].ravel().tolist() == [0.5, 0.5]
