"""Combines supernet score and prediction, by their error variances or by a fitted weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hwnas.core.errors import UserError
from hwnas.core.records import STRICT, Count, NotNegative, Share
from hwnas.interfaces import AccuracyPredictor, FloatArray
from hwnas.predictors.evaluate import BuildPredictor, cross_fitted
from hwnas.predictors.labels import Scale
from hwnas.spaces.space import Codes

__all__ = [
    "Blend",
    "Errors",
    "blend",
    "blend_weight",
    "corrected",
    "few_shot_blend",
    "fit_blend",
    "fit_errors",
    "mix_weights",
]

MIN_HELD_OUT = 3
FEW_SHOT_FOLDS = 10


@dataclass(frozen=True)
class Errors:
    """Error variances of evaluations and of predictions; both must estimate the same score.

    evaluation: variance of (score on all validation images - score on very many images).
    prediction: error variance of the predictions of held-out archs, after subtracting that of the
        labels that they are compared with.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    evaluation: NotNegative
    prediction: NotNegative


@dataclass(frozen=True)
class Blend:
    """Weighted sum of standardised scores: one from the supernet, one from the predictor.

    The sum is `(1 - weight) * z(supernet) + weight * z(predicted)`, the reward of WPNAS
    (2203.02086). `z` standardises with the stored scales `supernet` and `predicted`. They are fixed
    together with the weight, so that rewards of different rounds are comparable.

    n_held_back: number of held-out archs that the weight was fitted on.
    errors: if not None, the score is instead the prediction, `corrected` by the evaluation, and
        `weight` only reports the mean weight of the prediction in it.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    weight: Share
    supernet: Scale
    predicted: Scale
    n_held_back: Count
    errors: Errors | None = None


def mix_weights(parts: Sequence[FloatArray], truth: FloatArray) -> FloatArray:
    """Weights [k], which sum to 1, for mixing k scores [n] of held-out archs.

    They are non-negative, and the mix of the standardised scores best fits `truth` (least squares),
    after its ranks are mapped to quantiles of a normal distribution. Ranks limit the influence of a
    few very bad archs. A score that adds nothing to the others, or is anti-correlated, gets weight
    0. If no score helps, all weights are equal.
    """
    from scipy.optimize import nnls
    from scipy.special import ndtri
    from scipy.stats import rankdata

    standardised = [Scale.of(part).standardise(part) for part in parts]
    target = ndtri((rankdata(truth) - 0.5) / len(truth))
    coefficients: FloatArray = nnls(np.stack(standardised, axis=1), target)[0]
    total = coefficients.sum()
    return coefficients / total if total > 0 else np.full(len(parts), 1 / len(parts))


def blend_weight(supernet: FloatArray, predicted: FloatArray, truth: FloatArray) -> float:
    """Weight in [0, 1] of the predictor relative to the supernet (`mix_weights`); arrays [n]."""
    return float(mix_weights([supernet, predicted], truth)[1])


def fit_blend(supernet: FloatArray, predicted: FloatArray, truth: FloatArray) -> Blend:
    """Fits weight and scales to the scores of held-out archs: arrays [n], higher is better.

    Raises:
        UserError: fewer than three archs, arrays of different length, or a value that is not
            finite.
    """
    _require_scores(supernet, predicted, truth)
    return Blend(
        weight=blend_weight(supernet, predicted, truth),
        supernet=Scale.of(supernet),
        predicted=Scale.of(predicted),
        n_held_back=len(truth),
    )


def fit_errors(
    halves: tuple[FloatArray, FloatArray],
    labels: FloatArray,
    predicted: FloatArray,
    predicted_std: FloatArray,
) -> Blend:
    """Estimates the `Errors` from held-out archs; arrays [n], all in the same unit.

    halves: scores on the two halves of the images. Their difference has four times the error
        variance of their mean, which is about the label. A difference that all archs share does
        not count, because it does not change their order.
    labels: scores on all images.

    Raises:
        UserError: as in `fit_blend`.
    """
    _require_scores(labels, predicted, halves[0] - halves[1])
    noise = float(np.var(halves[0] - halves[1], ddof=1)) / 4
    errors = Errors(noise, max(0.0, float(np.mean((labels - predicted) ** 2)) - noise))
    share = 1 - float(_gain(errors, predicted_std).mean())
    return Blend(share, Scale.of(labels), Scale.of(predicted), len(labels), errors)


def _require_scores(supernet: FloatArray, predicted: FloatArray, truth: FloatArray) -> None:
    if not len(supernet) == len(predicted) == len(truth) >= MIN_HELD_OUT:
        raise UserError(
            "cannot combine supernet and predictor: too few or unequal numbers of scores",
            expected=f"at least {MIN_HELD_OUT} held-out archs, each with three scores",
            found=f"{len(supernet)} supernet scores, {len(predicted)} predictions, {len(truth)}"
            " true scores",
        )
    finite = np.isfinite([supernet, predicted, truth])
    if not finite.all():
        raise UserError(
            "scores of held-out archs are not finite",
            expected="finite numbers",
            found=f"{(~finite).sum()} of {finite.size} are infinite or NaN",
        )


def corrected(errors: Errors, mean: FloatArray, std: FloatArray, label: FloatArray) -> FloatArray:
    """Scores [n] of evaluated archs: predictions, corrected by the evaluations.

    This is the mean of the score under normal errors: mean + k * (label - mean) with k = v / (v +
    `errors.evaluation`), where v = `std`^2 + `errors.prediction`. So an evaluation on few images
    corrects little where the predictor is sure, and much where its members disagree, as they do for
    the best archs.
    """
    return np.asarray(mean + _gain(errors, std) * (label - mean))


def _gain(errors: Errors, std: FloatArray) -> FloatArray:
    unsure = np.square(std) + errors.prediction
    total = unsure + errors.evaluation
    return np.divide(unsure, total, out=np.ones_like(total), where=total > 0)


def few_shot_blend(
    build_predictor: BuildPredictor,
    codes: Codes,
    truth: FloatArray,
    supernet: FloatArray,
    *,
    seed: int,
) -> tuple[AccuracyPredictor, Blend]:
    """Fits a predictor on few true labels; returns it, and its blend with the supernet's scores.

    truth, supernet: true labels [n] and supernet scores [n] of the same archs.
    Every label is held out once, in one of ten additional fits. Few labels are too valuable to hold
    out a quarter of them in the only fit; also, a predictor fitted on far fewer labels would get
    too small a weight.
    """
    held_out = cross_fitted(build_predictor, codes, truth, seed=seed, n_folds=FEW_SHOT_FOLDS)
    fitted = fit_blend(supernet, held_out, truth)
    predictor = build_predictor()
    predictor.fit(codes, truth)
    return predictor, fitted


def blend(fitted: Blend, supernet: FloatArray, predicted: FloatArray) -> FloatArray:
    """Blended scores [n], in standard deviations of the held-out archs."""
    return (1 - fitted.weight) * fitted.supernet.standardise(
        supernet
    ) + fitted.weight * fitted.predicted.standardise(predicted)
