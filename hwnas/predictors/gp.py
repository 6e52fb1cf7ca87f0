"""A Gaussian process with an RBF kernel on one-hot choices (scikit-learn)."""

from __future__ import annotations

import warnings
from typing import Literal

from hwnas.core.config import StrictModel
from hwnas.core.rng import rng
from hwnas.interfaces import AccuracyPredictor, FloatArray, PredictorContext
from hwnas.predictors.tabular import Model, TabularPredictor

__all__ = ["Config", "build"]

MAX_TRIED = 512  # labels used to fit hyperparameters; all of 4,000 would take minutes


class Config(StrictModel):
    """`has_costs` adds log MACs and log parameters to the one-hot choices."""

    name: Literal["gp"] = "gp"
    has_costs: bool = False
    """Whether log MACs and log parameters are added to the one-hot choices."""


def build(config: Config, context: PredictorContext) -> AccuracyPredictor:
    """A Gaussian process for the space, not fitted yet. Time is cubic in the number of labels."""
    return TabularPredictor(context, regress=_regress, has_costs=config.has_costs)


def _regress(features: FloatArray, targets: FloatArray) -> Model:
    """Amplitude, length scale and noise by maximum marginal likelihood on some of the labels."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    kernel = ConstantKernel(1.0, (1e-2, 1e3)) * RBF(5.0, (0.5, 200.0)) + WhiteKernel(
        0.1, (1e-5, 1e1)
    )
    tried = rng(0, "gp").permutation(len(targets))[:MAX_TRIED]
    with warnings.catch_warnings():  # a hyperparameter at its bound is acceptable
        warnings.simplefilter("ignore", ConvergenceWarning)
        search = GaussianProcessRegressor(kernel, random_state=0)
        search.fit(features[tried], targets[tried])
    process = GaussianProcessRegressor(search.kernel_, optimizer=None)
    process.fit(features, targets)

    def model(new: FloatArray) -> tuple[FloatArray, FloatArray]:
        mean, std = process.predict(new, return_std=True)
        return mean, std

    return model
