"""Attentive: of k archs of equal cost, the one with the lowest or highest loss (AttentiveNAS).

BestUp-k of AttentiveNAS (2011.09011, section 3) trains the most promising of k archs, WorstUp-k the
least promising. A random arch names the cost, so that costs are met as often as in the space; the
others are of the same bucket. Which one is trained is decided by the batch that it is trained on.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from hwnas.interfaces import ArchSampler, SamplerContext, Slot
from hwnas.training.samplers._slots import CostConfig, SlotBySlot, metric_and_range

__all__ = ["Config", "build"]

N_DRAWN = 512  # archs that those of one bucket are picked from


class Config(CostConfig):
    """Parameters of the sampler: candidates share their cost, and each takes a forward pass."""

    name: Literal["attentive"] = "attentive"
    keep: Literal["best", "worst"] = Field(default="best", description="BestUp or WorstUp")
    k: int = Field(default=3, ge=2, le=64, description="candidates")
    n_buckets: int = Field(default=20, ge=1, le=1000, description="of equal width in cost")


def build(config: Config, context: SamplerContext) -> ArchSampler:
    """The sampler; its candidates depend on (seed, step) and the metric.

    Raises:
        UserError: the metric is not known.
    """
    space, (metric, low, high) = context.space, metric_and_range(config, context)

    def draw(stream: np.random.Generator) -> Slot:
        """Up to k candidates of one bucket, which the first arch drawn names."""
        codes = space.sample(N_DRAWN, rng=stream)
        buckets = np.floor((metric(codes) - low) / (high - low or 1) * config.n_buckets)
        alike = np.flatnonzero(buckets == buckets[0])
        archs = dict.fromkeys(space.arch(row) for row in codes[alike])
        return Slot(tuple(archs)[: config.k], "lowest" if config.keep == "best" else "highest")

    return SlotBySlot(space, context.seed, config.n_random, config.ends, draw)
