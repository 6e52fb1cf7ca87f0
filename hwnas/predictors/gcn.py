"""Graph convolutional networks, averaged with Gaussian processes on the same archs (default)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.interfaces import AccuracyPredictor, FloatArray, PredictorContext
from hwnas.predictors.recipe import Recipe
from hwnas.spaces.space import Codes

__all__ = ["Config", "build"]

QUICK = {"training": {"members": 2, "min_steps": 20, "max_steps": 20}}


class Config(StrictModel):
    """Size of every network, and the training of the ensemble."""

    name: Literal["gcn"] = "gcn"
    """Kind of the predictor: an ensemble of graph convolutional networks (GCN)."""
    width: Annotated[int, Field(ge=4, le=1024)] = 24
    """Channels of each graph convolution."""
    depth: Annotated[int, Field(ge=1, le=16)] = 3
    """Number of graph convolutions in a row; each one reaches one edge of the network further."""
    has_costs: bool = True
    """Whether MACs, parameters and the shape of the whole graph are features, too (of a global
    node).
    """
    has_process: bool = True
    """Whether the prediction is the mean of the networks and of Gaussian processes on the same
    labels.
    """
    training: Recipe = Recipe()


def build(config: Config, context: PredictorContext) -> AccuracyPredictor:
    """A GCN ensemble for the space, not fitted yet."""
    import torch

    from hwnas.nets.graph_conv import GCN
    from hwnas.predictors.ensemble import EnsemblePredictor
    from hwnas.predictors.graph import (
        GraphBatch,
        choice_features,
        flat_features,
        graph_batch,
        space_features,
    )
    from hwnas.predictors.labels import whole
    from hwnas.predictors.proxies import proxy_columns

    everything = whole(context.space)
    table = torch.from_numpy(space_features(everything))
    example = graph_batch(everything, everything.codes([everything.smallest()]))
    summary_width = config.has_costs * example.summary.shape[1] + len(context.proxies)

    def encode(codes: Codes) -> tuple[NDArray[Any], ...]:
        batch = graph_batch(everything, codes)
        return batch.nodes.astype(np.int64), batch.reads, batch.feeds, summary(batch, codes)

    def summary(batch: GraphBatch, codes: Codes) -> NDArray[np.float32]:
        known = batch.summary if config.has_costs else batch.summary[:, :0]
        return np.hstack([known, proxy_columns(context.proxies, codes)])

    def smooth(codes: Codes) -> tuple[FloatArray, ...]:
        """Features of archs [n, d] for the two Gaussian processes, one array for each.

        Both have operators and costs; the second also has the choices, one-hot.
        """
        if not config.has_process:
            return ()
        batch = graph_batch(everything, codes)
        operators = np.hstack([flat_features(everything, batch), summary(batch, codes)])
        choices = choice_features(everything, codes)
        return operators.astype(np.float64), np.hstack([operators, choices]).astype(np.float64)

    def make(generator: torch.Generator) -> GCN:
        return GCN(
            table,
            n_nodes=example.nodes.shape[1],
            n_summary=summary_width,
            members=config.training.members,
            width=config.width,
            depth=config.depth,
            generator=generator,
        )

    return EnsemblePredictor(
        context.space,
        seed=context.seed,
        recipe=config.training,
        encode=encode,
        make=make,
        smooth=smooth,
    )
