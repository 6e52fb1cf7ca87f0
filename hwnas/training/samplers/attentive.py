"""Attentive: of k archs of equal cost, the one with the lowest or highest loss (AttentiveNAS).

BestUp-k of AttentiveNAS (2011.09011, section 3) trains the most promising of k archs, and WorstUp-k
the least promising. A random arch selects the cost bucket, so that costs occur as often as in the
space. The other candidates are from the same bucket. The batch of the step selects the candidate to
train.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from hwnas.interfaces import ArchSampler, SamplerContext, Slot
from hwnas.training.samplers._slots import CostConfig, SlotBySlot, metric_and_range

__all__ = ["Config", "build"]

N_DRAWN = 512  # archs from which those of one bucket are selected


class Config(CostConfig):
    """Parameters of the sampler. Candidates share a cost bucket, and each takes a forward pass."""

    name: Literal["attentive"] = "attentive"
    keep: Literal["best", "worst"] = Field(
        default="best",
        description="Which candidate for a random arch is trained: the one with the lowest loss on"
        " the batch (`best`, BestUp) or the highest (`worst`, WorstUp).",
    )
    k: int = Field(
        default=3,
        ge=2,
        le=64,
        description="Number of candidates of about equal cost for each random arch; each takes a"
        " forward pass.",
    )
    n_buckets: int = Field(
        default=20,
        ge=1,
        le=1000,
        description="Number of equal intervals between the smallest and the largest cost;"
        " candidates are from the same interval.",
    )


def build(config: Config, context: SamplerContext) -> ArchSampler:
    """Builds the sampler; its candidates depend on (seed, step) and the metric.

    Raises:
        UserError: unknown metric.
    """
    space, (metric, low, high) = context.space, metric_and_range(config, context)

    def draw(stream: np.random.Generator) -> Slot:
        """Up to k candidates from the bucket of the first drawn arch."""
        codes = space.sample(N_DRAWN, rng=stream)
        buckets = np.floor((metric(codes) - low) / (high - low or 1) * config.n_buckets)
        alike = np.flatnonzero(buckets == buckets[0])
        archs = dict.fromkeys(space.arch(row) for row in codes[alike])
        return Slot(tuple(archs)[: config.k], "lowest" if config.keep == "best" else "highest")

    return SlotBySlot(space, context.seed, config.n_random, config.ends, draw)
