"""Gradient-boosted trees on one-hot choices and costs (scikit-learn), calibrated out of fold."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.core.rng import stable_seed
from hwnas.interfaces import AccuracyPredictor, FloatArray, PredictorContext
from hwnas.predictors.labels import spread_factor
from hwnas.predictors.tabular import Model, TabularPredictor

__all__ = ["Config", "build"]

QUICK = {"n_trees": 20}

FOLDS = 4


class Config(StrictModel):
    """Features, and number and size of the trees."""

    name: Literal["boosting"] = "boosting"
    has_costs: bool = True
    """Whether log MACs and log parameters are features of an arch, besides its one-hot choices."""
    n_trees: Annotated[int, Field(ge=10, le=10_000)] = 100
    """Number of trees, fitted one after the other."""
    depth: Annotated[int, Field(ge=1, le=16)] = 3
    """Largest depth of a tree."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Factor of the prediction of each tree; smaller values need more trees."""


def build(config: Config, context: PredictorContext) -> AccuracyPredictor:
    """Gradient boosting for the space, not fitted yet."""
    regress = partial(_regress, config=config, seed=stable_seed(context.seed, "boosting") % 2**32)
    return TabularPredictor(context, regress=regress, has_costs=config.has_costs)


def _regress(features: FloatArray, targets: FloatArray, *, config: Config, seed: int) -> Model:
    """Stochastic gradient boosting (Friedman 2002), with one std from held-out folds."""
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.model_selection import KFold, cross_val_predict

    trees = GradientBoostingRegressor(
        n_estimators=config.n_trees,
        max_depth=config.depth,
        learning_rate=config.learning_rate,
        subsample=0.7,
        random_state=seed,
    )
    folds = KFold(FOLDS, shuffle=True, random_state=seed)
    targets = targets.round(9)  # otherwise the unit of the labels would decide ties between splits
    residuals = cross_val_predict(trees, features, targets, cv=folds) - targets
    std = spread_factor(residuals, np.ones(len(targets)))
    trees.fit(features, targets)

    def model(new: FloatArray) -> tuple[FloatArray, FloatArray]:
        return trees.predict(new), np.full(len(new), std)

    return model
