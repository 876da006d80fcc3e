"""A Gaussian process that says what it knows and what it does not."""

import numpy as np
import pytest
from scipy.optimize import check_grad

from tune_stoppers.surrogate.gaussian_process import GaussianProcess

RNG = np.random.default_rng(0)
GROUPS = np.array([0, 1, 1])


def test_the_fit_follows_the_gradient_of_what_it_minimises() -> None:
    """The analytic gradient is that of the loss."""
    points, values = RNG.random((20, 3)), RNG.standard_normal(20)
    process, noisiness = GaussianProcess(GROUPS), RNG.random(20)
    logs = 0.3 * RNG.standard_normal(4)
    error = check_grad(
        lambda x: process._loss(x, points, values, noisiness)[0],
        lambda x: process._loss(x, points, values, noisiness)[1],
        logs,
    )
    assert error < 1e-4


def test_it_learns_which_hyperparameter_matters() -> None:
    """Predictions follow it, and its length scale is the shorter one."""
    points = RNG.random((60, 2))
    values = np.sin(6 * points[:, 0])
    process = GaussianProcess(np.array([0, 1]))
    process.fit(points, values)
    asked = RNG.random((30, 2))
    mean, sd = process.posterior(points, values, asked)
    assert np.abs(mean - np.sin(6 * asked[:, 0])).max() < 0.15
    assert (sd < 0.3).all()
    assert process.logs[0] < process.logs[1] - 0.5


def test_a_noisier_value_counts_less() -> None:
    """Between two values in one place the mean is nearer to the one with less noise."""
    points, values = np.full((2, 3), 0.5), np.array([1.0, -1.0])
    process = GaussianProcess(GROUPS)
    even = process.posterior(points, values, points[:1]).mean
    mean = process.posterior(points, values, points[:1], noisiness=np.array([1.0, 9.0])).mean
    assert even == pytest.approx(0, abs=1e-9)
    assert 0.2 < mean[0] < 1


def test_far_from_what_is_known_it_is_uncertain() -> None:
    """There the mean goes back to zero, and the deviation grows."""
    points, values = RNG.random((10, 3)), np.full(10, 2.0)
    process = GaussianProcess(GROUPS)
    near, far = process.posterior(points, values, np.array([points[0], [50.0, 50.0, 50.0]])).sd
    assert far > 1.5 * near
    assert process.posterior(points, values, np.full((1, 3), 50.0)).mean == pytest.approx(
        [0.0], abs=1e-6
    )


def test_what_is_awaited_narrows_the_deviation_and_leaves_the_mean() -> None:
    """Eight workers are not all sent to the same place."""
    points, values = RNG.random((10, 3)), RNG.standard_normal(10)
    asked = RNG.random((2, 3))
    process = GaussianProcess(GROUPS)
    alone = process.posterior(points, values, asked)
    with_one = process.posterior(points, values, asked, asked[:1])
    assert with_one.mean == pytest.approx(alone.mean)
    assert with_one.sd[0] < 0.8 * alone.sd[0]


def test_points_together_are_believed_as_each_alone() -> None:
    """The joint belief has the same means and deviations; near points go together."""
    points, values = RNG.random((10, 3)), RNG.standard_normal(10)
    asked = np.vstack([RNG.random((2, 3)), np.full((1, 3), 9.0), np.full((1, 3), 9.01)])
    process = GaussianProcess(GROUPS)
    mean, covariance = process.given(points, values, noisiness=2.0).at(asked)
    alone = process.posterior(points, values, asked, noisiness=2.0)
    assert mean == pytest.approx(alone.mean)
    assert np.sqrt(np.diag(covariance)) == pytest.approx(alone.sd)
    assert covariance[2, 3] > 0.99 * covariance[2, 2]
    assert abs(covariance[0, 2]) < 0.01 * covariance[2, 2]
