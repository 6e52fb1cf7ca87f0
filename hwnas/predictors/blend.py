"""Supernet score and predictor combined, with a weight that held-back archs decide (WPNAS)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hwnas.core.errors import UserError
from hwnas.core.records import STRICT
from hwnas.interfaces import FloatArray
from hwnas.predictors.labels import Scale

__all__ = ["Blend", "blend", "blend_weight", "fit_blend"]

MIN_HELD_BACK = 3


@dataclass(frozen=True)
class Blend:
    """(1 - weight) * z(supernet score) + weight * z(predicted score) (WPNAS 2203.02086, reward).

    The scales are frozen when the weight is set, so that rewards of different rounds compare.
    `n_held_back` archs decided the weight.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    weight: float
    supernet: Scale
    predicted: Scale
    n_held_back: int


def blend_weight(supernet: FloatArray, predicted: FloatArray, truth: FloatArray) -> float:
    """Weight in [0, 1] of the predictor, from archs that it has not learned from: each [n].

    The non-negative mix of both standardised scores that fits the truth's normal ranks best. A
    signal that adds nothing beside the other, or is anti-correlated, gets none of the weight; if
    neither helps, each gets half. Ranks keep a few broken archs from deciding it.
    """
    from scipy.optimize import nnls
    from scipy.special import ndtri
    from scipy.stats import rankdata

    parts = [Scale.of(part).standardise(part) for part in (supernet, predicted)]
    target = ndtri((rankdata(truth) - 0.5) / len(truth))
    coefficients, _ = nnls(np.stack(parts, axis=1), target)
    total = float(coefficients.sum())
    return float(coefficients[1]) / total if total > 0 else 0.5


def fit_blend(supernet: FloatArray, predicted: FloatArray, truth: FloatArray) -> Blend:
    """Weight and scales from held-back archs: three arrays [n], all higher is better.

    Raises:
        UserError: fewer than three archs, arrays of different length, or a value is not finite.
    """
    if not len(supernet) == len(predicted) == len(truth) >= MIN_HELD_BACK:
        raise UserError(
            "cannot weigh supernet against predictor",
            expected=f"three scores of each of at least {MIN_HELD_BACK} held-back archs",
            found=f"{len(supernet)}, {len(predicted)} and {len(truth)} scores",
        )
    if not np.isfinite([supernet, predicted, truth]).all():
        raise UserError("scores of held-back archs must be finite")
    return Blend(
        weight=blend_weight(supernet, predicted, truth),
        supernet=Scale.of(supernet),
        predicted=Scale.of(predicted),
        n_held_back=len(truth),
    )


def blend(fitted: Blend, supernet: FloatArray, predicted: FloatArray) -> FloatArray:
    """Blended scores [n], in standard deviations of the held-back archs."""
    return (1 - fitted.weight) * fitted.supernet.standardise(
        supernet
    ) + fitted.weight * fitted.predicted.standardise(predicted)
