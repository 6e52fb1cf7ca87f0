"""Held-out reports with predictors whose quality is known, and the blend of two signals."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.core.errors import UserError
from hwnas.core.records import dump, load
from hwnas.core.rng import rng
from hwnas.core.stats import kendall_tau
from hwnas.predictors.blend import (
    Blend,
    Errors,
    blend,
    blend_weight,
    corrected,
    fit_blend,
    fit_errors,
)
from hwnas.predictors.evaluate import (
    PredictorReport,
    cross_validated_report,
    held_out_report,
)
from hwnas.predictors.top import TopQuality
from hwnas.spaces.cost import cost


class Oracle:
    """Predicts log MACs plus `error`; remembers what it was fitted on."""

    fitted: list

    def __init__(self, space, error, std):
        self.space, self.error, self.std = space, error, std

    def fit(self, codes, scores):
        Oracle.fitted.append({tuple(row) for row in codes.tolist()})

    def predict(self, codes):
        mean = np.log(cost(self.space, codes, "macs")) + self.error
        return mean, np.full(len(codes), self.std)


@pytest.fixture(scope="module")
def archs(tiny_space):
    codes = np.unique(tiny_space.sample(200, rng=rng(0, "test/evaluate")), axis=0)
    Oracle.fitted = []
    return codes, np.log(cost(tiny_space, codes, "macs"))


def test_report_measures_what_is_known_by_construction(archs, tiny_space):
    codes, scores = archs
    report = held_out_report(
        lambda: Oracle(tiny_space, error=0.3, std=0.1),
        codes,
        scores,
        space=tiny_space,
        seed=0,
        held_out_fraction=0.3,
    )
    assert (report.n_held_out, report.n_fit) == (
        round(0.3 * len(codes)),
        len(codes) - report.n_held_out,
    )
    assert report.kendall_tau == report.macs_tau == 1.0
    assert report.kendall_tau_interval == pytest.approx((1.0, 1.0))
    assert report.top == TopQuality(1, 1, 1.0, 0.0)
    assert 0 < report.params_tau < 1
    assert report.rmse == pytest.approx(0.3)
    assert report.coverage == 0.0  # 0.3 off, intervals of +- 0.16
    assert report.interval_width == pytest.approx(0.1 * 2 * 1.645, rel=1e-3)
    assert len(report.truth) == len(report.predicted) == len(report.predicted_std)
    assert load(PredictorReport, dump(report), where="test") == report


def test_no_arch_is_tested_by_a_predictor_that_learned_it(archs, tiny_space):
    codes, scores = archs
    Oracle.fitted = []
    report = cross_validated_report(
        lambda: Oracle(tiny_space, 0.0, 0.1), codes, scores, space=tiny_space, seed=0, n_folds=4
    )
    everything = {tuple(row) for row in codes.tolist()}
    held_out = [everything - fitted for fitted in Oracle.fitted]
    assert sum(len(part) for part in held_out) == len(set.union(*held_out)) == len(codes)
    assert (report.n_folds, report.n_held_out, report.coverage) == (4, len(codes), 1.0)


def test_too_few_labels_are_refused(archs, tiny_space):
    codes, scores = archs
    with pytest.raises(UserError, match="too few held-out archs to test a predictor"):
        held_out_report(
            lambda: Oracle(tiny_space, 0.0, 0.1), codes[:5], scores[:5], space=tiny_space, seed=0
        )
    with pytest.raises(UserError, match="too few held-out archs to test a predictor"):
        cross_validated_report(
            lambda: Oracle(tiny_space, 0.0, 0.1), codes[:4], scores[:4], space=tiny_space, seed=0
        )


# --- blend ----------------------------------------------------------------------------------------


def signals(noise_supernet, noise_predicted, n=4000):
    """A truth, and two scores of it in other units with independent noise."""
    stream = rng(0, "test/blend")
    truth = stream.normal(size=n)
    supernet = 0.3 + 0.01 * (truth + noise_supernet * stream.normal(size=n))
    predicted = 70 + 5 * (truth + noise_predicted * stream.normal(size=n))
    return supernet, predicted, truth


def test_weight_is_the_optimal_mix_of_independent_errors():
    # Best linear mix of x_i = t + noise_i weighs 1 / noise_i^2; on z(x_i), which is
    # x_i / sqrt(1 + noise_i^2), that is sqrt(1 + noise_i^2) / noise_i^2.
    supernet, predicted, truth = signals(1.0, 0.5)
    parts = np.sqrt([2.0, 1.25]) / np.array([1.0, 0.25])
    assert blend_weight(supernet, predicted, truth) == pytest.approx(
        parts[1] / parts.sum(), abs=0.03
    )


def test_blend_beats_its_parts_on_archs_that_did_not_set_the_weight():
    supernet, predicted, truth = signals(1.0, 0.7)
    fitted = fit_blend(supernet[:40], predicted[:40], truth[:40])
    mixed = blend(fitted, supernet[40:], predicted[40:])
    parts = [kendall_tau(part[40:], truth[40:]) for part in (supernet, predicted)]
    assert kendall_tau(mixed, truth[40:]) > max(parts) + 0.03


def test_the_errors_of_evaluations_and_predictions_are_found_and_used():
    """Known errors; predictions of half of the archs, which say so, are worse."""
    stream, n = np.random.default_rng(3), 4000
    truth = stream.normal(-1.0, 0.3, n)
    halves = (truth + stream.normal(0, 0.2, n), truth + 0.1 + stream.normal(0, 0.2, n))
    label = (halves[0] + halves[1]) / 2 - 0.05
    std = np.where(np.arange(n) % 2, 0.3, 0.0)
    predicted = truth + stream.normal(0, 0.1, n) + stream.normal(0, 1, n) * std
    sure = std == 0
    fitted = fit_errors((halves[0][sure], halves[1][sure]), label[sure], predicted[sure], std[sure])
    assert fitted.errors is not None
    assert fitted.errors.evaluation == pytest.approx(0.02, rel=0.1)
    assert fitted.errors.prediction == pytest.approx(0.01, rel=0.25)
    assert fitted.weight == pytest.approx(2 / 3, abs=0.06)  # 0.02 / (0.01 + 0.02)
    scores = corrected(fitted.errors, predicted, std, label)
    for part, prior in ((sure, 0.01), (~sure, 0.10)):
        error = np.mean((scores - truth)[part] ** 2)
        assert error == pytest.approx(prior * 0.02 / (prior + 0.02), rel=0.1)  # the posterior's


def test_without_errors_of_its_own_a_score_replaces_the_other():
    mean, std, label = np.array([1.0, 2.0]), np.zeros(2), np.array([3.0, 5.0])
    assert (corrected(Errors(0.0, 0.1), mean, std, label) == label).all()
    assert (corrected(Errors(0.1, 0.0), mean, std, label) == mean).all()
    assert (corrected(Errors(0.0, 0.0), mean, std, label) == label).all()
    assert (corrected(Errors(0.04, 0.0), mean, std + 0.2, label) == (mean + label) / 2).all()


def test_useless_and_misleading_signals_get_no_weight():
    supernet, predicted, truth = signals(1.0, 0.5)
    assert blend_weight(-supernet, predicted, truth) == 1.0
    assert blend_weight(supernet, -predicted, truth) == 0.0
    assert blend_weight(supernet, np.full_like(truth, 3.0), truth) == 0.0
    assert blend_weight(-supernet, -predicted, truth) == 0.5


def test_blend_is_a_record_and_refuses_too_little():
    supernet, predicted, truth = signals(1.0, 0.5, n=50)
    fitted = fit_blend(supernet, predicted, truth)
    assert load(Blend, dump(fitted), where="test") == fitted
    known = fit_errors((supernet, truth), supernet, predicted, np.ones(50))
    assert load(Blend, dump(known), where="test") == known
    assert blend(fitted, supernet, predicted).mean() == pytest.approx(0, abs=1e-9)
    with pytest.raises(UserError, match="at least 3"):
        fit_blend(supernet[:2], predicted[:2], truth[:2])
    with pytest.raises(UserError, match="finite"):
        fit_blend(supernet, np.where(truth > 1, np.nan, predicted), truth)
