"""The closed-form Gaussian process against leaving points out by hand and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel

from hwnas.core.rng import rng
from hwnas.predictors.process import Processes, fit_process, fit_processes, predict


@pytest.fixture(scope="module")
def data():
    stream = rng(0, "test/process")
    features = stream.normal(size=(60, 3))
    targets = np.sin(features[:, 0]) + features[:, 1] ** 2 + 0.1 * stream.normal(size=60)
    return features, targets, stream.normal(size=(40, 3))


def noise_of(process, features, targets):
    """The chosen noise, from (K + s I) weights = y."""
    distances = ((features[:, None] - features) ** 2).sum(-1)
    kernel = np.exp(-distances / process.length)
    rest = targets - process.mean - kernel @ process.weights
    return float(np.mean(rest / process.weights))


def test_forecasts_are_those_of_scikit_learn_with_the_same_kernel(data):
    features, targets, new = data
    process, _ = fit_process(features, targets, seed=0)
    noise = noise_of(process, features, targets)
    kernel = RBF(np.sqrt(process.length / 2)) + WhiteKernel(noise)
    oracle = GaussianProcessRegressor(kernel, optimizer=None)
    oracle.fit(features, targets - process.mean)
    np.testing.assert_allclose(predict(process, new), process.mean + oracle.predict(new), atol=1e-4)


def test_left_out_forecasts_are_those_of_refits(data):
    features, targets, _ = data
    process, left_out = fit_process(features, targets, seed=0)
    noise = noise_of(process, features, targets)
    for i in range(0, len(targets), 7):
        rest = np.arange(len(targets)) != i
        distances = ((features[:, None] - features) ** 2).sum(-1)
        kernel = np.exp(-distances / process.length)
        inner = kernel[np.ix_(rest, rest)] + noise * np.eye(rest.sum())
        by_hand = kernel[i, rest] @ np.linalg.solve(inner, targets[rest] - process.mean)
        assert left_out[i] == pytest.approx(process.mean + by_hand, abs=1e-6)


def test_noise_is_noticed(data):
    features, targets, _ = data
    noisy = targets + 2 * rng(0, "test/noise").normal(size=len(targets))
    clean_fit, _ = fit_process(features, targets, seed=0)
    noisy_fit, _ = fit_process(features, noisy, seed=0)
    assert noise_of(noisy_fit, features, noisy) > 10 * noise_of(clean_fit, features, targets)


def test_equal_points_and_constant_targets_are_no_trouble():
    process, left_out = fit_process(np.zeros((8, 2)), np.ones(8), seed=0)
    np.testing.assert_allclose(left_out, 1)
    np.testing.assert_allclose(predict(process, np.ones((3, 2))), 1)
    assert predict(process, np.zeros((0, 2))).shape == (0,)


def test_several_processes_are_averaged_and_survive_their_state(data):
    features, targets, new = data
    views, new_views = (features, features[:, :1]), (new, new[:, :1])
    both, left_out = fit_processes(views, targets, seed=0)
    alone = [fit_process(view, targets, seed=0) for view in views]
    np.testing.assert_allclose(left_out, (alone[0][1] + alone[1][1]) / 2)
    expected = (predict(alone[0][0], new) + predict(alone[1][0], new[:, :1])) / 2
    np.testing.assert_allclose(both.predict(new_views), expected)
    np.testing.assert_array_equal(Processes.load(both.state(), 2).predict(new_views), expected)
    with pytest.raises(KeyError):
        Processes.load(both.state(), 3)
