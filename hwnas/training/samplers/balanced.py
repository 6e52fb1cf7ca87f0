"""Balanced: random archs are spread evenly over MACs, or over latency on a device (PGONAS).

Independent uniform choices give archs of much the same cost. Here a cost is drawn first, evenly
between the least and the greatest, and then the arch nearest to it among some of all sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.core.rng import rng
from hwnas.interfaces import ArchSampler, CostMetric, Slot
from hwnas.spaces.arch import Arch
from hwnas.spaces.space import SearchSpace
from hwnas.training.samplers._slots import (
    BalanceMetric,
    cost_range,
    metric_named,
    sandwiched,
    single,
    skewed,
)

__all__ = ["Config", "build"]

N_CANDIDATES = 128


class Config(StrictModel):
    """Parameters of the sampler."""

    name: Literal["balanced"] = "balanced"
    metric: BalanceMetric = Field(default="macs", description="what the archs are spread over")
    device: str = Field(default="local", description="of latency_ms: a device with a table")
    n_random: int = Field(default=2, ge=1, le=64, description="random archs per step")
    ends: bool = Field(default=True, description="largest and smallest as well (sandwich rule)")


@dataclass(frozen=True)
class _Balanced:
    space: SearchSpace
    config: Config
    metric: CostMetric
    range: tuple[float, float]
    seed: int

    @property
    def in_place(self) -> bool:
        return self.config.ends

    def slots(self, step: int) -> list[Slot]:
        """The ends, if wanted, and n archs of evenly spread cost."""
        drawn = [self._draw(step, slot) for slot in range(self.config.n_random)]
        return sandwiched(self.space, single(drawn), ends=self.config.ends)

    def _draw(self, step: int, slot: int) -> Arch:
        stream = rng(self.seed, "train/arch", step, slot)
        wanted = stream.uniform(*self.range)
        codes = skewed(self.space, stream, N_CANDIDATES)
        return self.space.arch(codes[np.abs(self.metric(codes) - wanted).argmin()])


def build(
    config: Config,
    space: SearchSpace,
    *,
    seed: int,
    n_steps: int,
    metrics: Mapping[str, CostMetric],
) -> ArchSampler:
    """The sampler over `space`; its archs depend on (seed, step) and the metric.

    Raises:
        UserError: the metric is not known.
    """
    metric = metric_named(config.metric, config.device, metrics)
    return _Balanced(space, config, metric, cost_range(space, metric, seed), seed)
