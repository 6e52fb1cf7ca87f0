"""A random forest on one-hot choices and costs (scikit-learn), calibrated out of bag."""

from __future__ import annotations

import warnings
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

FLOOR = 1.0  # weight of the mean spread, as in the network ensembles


class Config(StrictModel):
    """Features and size of the forest."""

    name: Literal["forest"] = "forest"
    has_costs: bool = True
    """Whether log MACs and log parameters are features of an arch, besides its one-hot choices."""
    n_trees: Annotated[int, Field(ge=10, le=10_000)] = 200
    """Number of trees, whose predictions are averaged."""


def build(config: Config, context: PredictorContext) -> AccuracyPredictor:
    """A random forest for the space, not fitted yet."""
    regress = partial(
        _regress, n_trees=config.n_trees, seed=stable_seed(context.seed, "forest") % 2**32
    )
    return TabularPredictor(context, regress=regress, has_costs=config.has_costs)


def _regress(features: FloatArray, targets: FloatArray, *, n_trees: int, seed: int) -> Model:
    """Mean over trees; the spread over trees is scaled to cover the out-of-bag residuals."""
    from sklearn.ensemble import RandomForestRegressor

    targets = targets.round(9)  # otherwise the unit of the labels would decide ties between splits
    forest = RandomForestRegressor(n_trees, oob_score=True, random_state=seed)
    with warnings.catch_warnings():  # an arch can be in every bootstrap sample
        warnings.simplefilter("ignore", UserWarning)
        forest.fit(features, targets)

    def trees(new: FloatArray) -> FloatArray:
        """Standardised scores of every tree: [n_trees, n]."""
        return np.stack([tree.predict(new) for tree in forest.estimators_])

    spread = trees(features).std(axis=0)
    floor = FLOOR * float(spread.mean())
    residuals = forest.oob_prediction_ - targets
    factor = spread_factor(residuals, np.hypot(spread, floor))

    def model(new: FloatArray) -> tuple[FloatArray, FloatArray]:
        by_tree = trees(new)
        return by_tree.mean(axis=0), factor * np.hypot(by_tree.std(axis=0), floor)

    return model
