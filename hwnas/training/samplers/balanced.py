"""Balanced: random archs are spread evenly over MACs, or over latency on a device (PGONAS).

Independent uniform choices give archs of similar cost. Here a cost is drawn first, uniformly
between minimum and maximum. Then the arch nearest to this cost is selected among archs of all
sizes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from hwnas.interfaces import ArchSampler, SamplerContext, Slot
from hwnas.training.samplers._slots import (
    CostConfig,
    SlotBySlot,
    metric_and_range,
    skewed,
)

__all__ = ["Config", "build"]

N_CANDIDATES = 128


class Config(CostConfig):
    """Parameters of the sampler, which spreads archs over the cost."""

    name: Literal["balanced"] = "balanced"


def build(config: Config, context: SamplerContext) -> ArchSampler:
    """Builds the sampler; its archs depend on (seed, step) and the metric.

    Raises:
        UserError: unknown metric.
    """
    space, (metric, low, high) = context.space, metric_and_range(config, context)

    def draw(stream: np.random.Generator) -> Slot:
        """The arch, among archs of all sizes, that is nearest to a uniformly drawn cost."""
        wanted = stream.uniform(low, high)
        codes = skewed(space, stream, N_CANDIDATES)
        return Slot((space.arch(codes[np.abs(metric(codes) - wanted).argmin()]),))

    return SlotBySlot(space, context.seed, config.n_random, config.ends, draw)
