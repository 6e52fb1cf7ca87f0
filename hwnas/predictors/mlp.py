"""An ensemble of multi-layer perceptrons on one-hot choices, as in Once-for-All."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.interfaces import AccuracyPredictor, PredictorContext
from hwnas.predictors.recipe import Recipe
from hwnas.spaces.space import Codes

__all__ = ["Config", "build"]

QUICK = {"training": {"members": 2, "min_steps": 20, "max_steps": 20}}


class Config(StrictModel):
    """Settings. The default is that of OFA (1908.09791, appendix): three layers of 400 units."""

    name: Literal["mlp"] = "mlp"
    width: Annotated[int, Field(ge=1, le=8192)] = 400
    """Units of each hidden layer."""
    depth: Annotated[int, Field(ge=1, le=16)] = 3
    """Number of hidden layers."""
    training: Recipe = Recipe(members=3, loss="mse", learning_rate=1e-3)


def build(config: Config, context: PredictorContext) -> AccuracyPredictor:
    """An MLP ensemble for the space, not fitted yet."""
    import torch

    from hwnas.nets.graph_conv import EnsembleMLP
    from hwnas.predictors.ensemble import EnsemblePredictor
    from hwnas.predictors.proxies import proxy_columns

    n_inputs = sum(len(choice.values) for choice in context.space.choices) + len(context.proxies)
    widths = (n_inputs, *[config.width] * config.depth, 1)

    def encode(codes: Codes) -> tuple[NDArray[Any], ...]:
        return (np.hstack([context.space.encode(codes), proxy_columns(context.proxies, codes)]),)

    def make(generator: torch.Generator) -> torch.nn.Module:
        mlp = EnsembleMLP(config.training.members, widths, generator)
        return torch.nn.Sequential(mlp, torch.nn.Flatten(1))

    return EnsemblePredictor(
        context.space, seed=context.seed, recipe=config.training, encode=encode, make=make
    )
