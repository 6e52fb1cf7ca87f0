"""Ridge against scikit-learn and against leaving every label out by hand; label arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeCV

from hwnas.core.rng import rng
from hwnas.predictors.labels import RobustScale, Scale, spread_factor
from hwnas.predictors.ridge import PENALTIES, ridge


@pytest.fixture
def data():
    stream = rng(0, "test/ridge")
    features = stream.normal(size=(30, 12))
    features[:, 11] = features[:, 0] - features[:, 1]  # one-hot features are collinear too
    targets = features @ stream.normal(size=12) + 2.0 + stream.normal(size=30)
    return features, targets, stream.normal(size=(50, 12))


def test_ridge_picks_the_penalty_and_weights_that_scikit_learn_does(data):
    features, targets, new = data
    oracle = RidgeCV(alphas=PENALTIES).fit(features, targets)  # leave-one-out too
    assert PENALTIES[0] < oracle.alpha_ < PENALTIES[-1]
    np.testing.assert_allclose(ridge(features, targets)(new)[0], oracle.predict(new), rtol=1e-8)


def test_ridge_std_agrees_with_leaving_labels_out_by_hand(data):
    features, targets, _ = data
    penalty = RidgeCV(alphas=PENALTIES).fit(features, targets).alpha_
    errors = []
    for i in range(len(targets)):
        rest = np.arange(len(targets)) != i
        refit = Ridge(penalty).fit(features[rest], targets[rest])
        errors.append(targets[i] - refit.predict(features[[i]])[0])
    _, std = ridge(features, targets)(features)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(std.mean(), rel=0.1)


def test_ridge_is_less_sure_far_from_its_labels(data):
    features, targets, new = data
    model = ridge(features, targets)
    assert (model(10 * new)[1] > model(new)[1]).all()


def test_ridge_recovers_an_exact_line_with_more_features_than_labels():
    one_hot = np.eye(3)[rng(0, "t").integers(0, 3, size=(12, 8))].reshape(12, 24)
    targets = one_hot @ np.linspace(-1, 1, 24)
    np.testing.assert_allclose(ridge(one_hot, targets)(one_hot)[0], targets, atol=1e-2)


def test_scale_round_trips_and_knows_constants():
    scores = np.array([1.0, 2.0, 4.0, 9.0])
    scale = Scale.of(scores)
    standardised = scale.standardise(scores)
    assert standardised.mean() == pytest.approx(0) and standardised.std() == pytest.approx(1)
    np.testing.assert_allclose(scale.restore(standardised), scores)
    constant = Scale.of(np.full(7, 0.1))  # whose numerical std is not 0
    assert constant.std == 0
    assert not constant.standardise(np.array([0.1, 0.2])).any()


def test_robust_scale_is_linear_inside_and_logarithmic_outside():
    scores = np.array([0.1, 0.88, 0.9, 0.9, 0.91, 0.92, 0.93])
    scale = RobustScale.of(scores)
    assert scale.median == 0.9
    assert scale.unit == pytest.approx((0.915 - 0.89) / 1.34898)
    standardised = scale.standardise(scores)
    assert standardised[-1] == pytest.approx(0.03 / scale.unit)  # within two units
    assert standardised[0] == pytest.approx(-2 * (1 + np.log(0.8 / scale.unit / 2)))
    assert (np.diff(standardised) >= 0).all()
    np.testing.assert_allclose(scale.restore(standardised), scores, rtol=1e-12)
    np.testing.assert_allclose(
        RobustScale.of(100 * scores - 5).standardise(100 * scores - 5), standardised, rtol=1e-9
    )
    assert np.isfinite(scale.restore(np.array([-1e6, 1e6]))).all()
    constant = RobustScale.of(np.full(7, 0.1))
    assert constant.unit == 0 and constant.restore(np.ones(2)).tolist() == [0.1, 0.1]
    mostly_equal = RobustScale.of(np.array([1.0, 1, 1, 1, 1, 1, 2]))
    assert mostly_equal.unit > 0


def test_spread_factor_covers_ninety_percent_of_new_residuals():
    stream = rng(0, "test/spread")
    spread = stream.uniform(0.5, 2, size=4000)
    residuals = 3 * spread * stream.standard_t(4, size=4000)  # heavy-tailed, wider where unsure
    factor = spread_factor(residuals[:2000], spread[:2000])
    covered = np.abs(residuals[2000:]) <= 1.6448536 * factor * spread[2000:]
    assert covered.mean() == pytest.approx(0.9, abs=0.02)
