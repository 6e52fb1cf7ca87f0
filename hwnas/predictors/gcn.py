"""An ensemble of graph convolutional networks on the chain of operators (the default)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.interfaces import AccuracyPredictor
from hwnas.predictors.recipe import Recipe
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["Config", "build"]


class Config(StrictModel):
    """Size of every network, and how the ensemble is trained."""

    name: Literal["gcn"] = "gcn"
    width: Annotated[int, Field(ge=4, le=1024)] = 24
    """Channels of each graph convolution."""
    depth: Annotated[int, Field(ge=1, le=16)] = 3
    """Graph convolutions, one hop along the chain each."""
    training: Recipe = Recipe()


def build(config: Config, *, space: SearchSpace, seed: int) -> AccuracyPredictor:
    """A GCN ensemble for `space`, not fitted yet."""
    import torch

    from hwnas.nets.graph_conv import GCN
    from hwnas.predictors.ensemble import EnsemblePredictor
    from hwnas.predictors.graph import graph_batch, space_features
    from hwnas.spaces.lowering import slot_names

    table = torch.from_numpy(space_features(space))
    n_nodes = len(slot_names(space)) + 1

    def encode(codes: Codes) -> tuple[NDArray[Any], ...]:
        batch = graph_batch(space, codes)
        return batch.nodes.astype(np.int64), batch.adjacency

    def make(generator: torch.Generator) -> GCN:
        return GCN(
            table,
            n_nodes=n_nodes,
            members=config.training.members,
            width=config.width,
            depth=config.depth,
            generator=generator,
        )

    return EnsemblePredictor(space, seed=seed, recipe=config.training, encode=encode, make=make)
