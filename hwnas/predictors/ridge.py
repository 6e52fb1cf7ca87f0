"""Ridge regression on one-hot choices and costs; leave-one-out error selects the penalty."""

from __future__ import annotations

from typing import Literal

import numpy as np

from hwnas.core.config import StrictModel
from hwnas.interfaces import AccuracyPredictor, FloatArray, PredictorContext
from hwnas.predictors.tabular import Model, TabularPredictor

__all__ = ["Config", "build", "is_sum"]

PENALTIES = tuple(float(penalty) for penalty in np.logspace(-3, 3, 25))


class Config(StrictModel):
    """Features of an arch."""

    name: Literal["ridge"] = "ridge"
    has_costs: bool = True
    """Whether log MACs and log parameters are features of an arch, besides its one-hot choices."""


def is_sum(config: Config) -> bool:
    """Whether scores are sums over blocks, as the searcher `exact` requires; log costs are not."""
    return not config.has_costs


def build(config: Config, context: PredictorContext) -> AccuracyPredictor:
    """A ridge regression for the space, not fitted yet; `seed` is not used."""
    return TabularPredictor(context, regress=ridge, has_costs=config.has_costs)


def ridge(features: FloatArray, targets: FloatArray) -> Model:
    """Closed-form ridge regression with an unpenalised intercept.

    With leverages h_i of the training points, leave-one-out residuals are r_i / (1 - h_i) with
    variance s^2 / (1 - h_i). The variance at a new point is s^2 (1 + h(x)) (Hastie et al., "The
    Elements of Statistical Learning", sections 3.4.1 and 7.10; exact for penalty 0).
    """
    centre, level = features.mean(axis=0), float(targets.mean())
    left, singular, right = np.linalg.svd(features - centre, full_matrices=False)
    kept = singular > 1e-9 * max(1.0, float(singular.max(initial=0.0)))
    left, singular, right = left[:, kept], singular[kept], right[kept]
    projected = left.T @ (targets - level)

    def leave_one_out(penalty: float) -> tuple[float, float]:
        """Mean squared leave-one-out residual, and s^2."""
        shrink = singular**2 / (singular**2 + penalty)
        slack = np.maximum(1 - 1 / len(targets) - left**2 @ shrink, 1e-6)
        residuals = (targets - level - left @ (shrink * projected)) / slack
        return float((residuals**2).mean()), float((residuals**2 * slack).mean())

    errors = [leave_one_out(penalty) for penalty in PENALTIES]
    best = int(np.argmin([error for error, _ in errors]))
    damped = singular**2 + PENALTIES[best]
    weights = right.T @ (singular / damped * projected)

    def model(new: FloatArray) -> tuple[FloatArray, FloatArray]:
        leverage = 1 / len(targets) + ((new - centre) @ right.T) ** 2 @ (1 / damped)
        return level + (new - centre) @ weights, np.sqrt(errors[best][1] * (1 + leverage))

    return model
