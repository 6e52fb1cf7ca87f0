"""Attentive: of k archs of equal cost, the one with the lowest or highest loss (AttentiveNAS).

BestUp-k of AttentiveNAS (2011.09011, section 3) trains the most promising of k archs, WorstUp-k the
least promising. A random arch names the cost, so that costs are met as often as in the space; the
others are of the same bucket. Which one is trained is decided by the batch that it is trained on.
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
from hwnas.spaces.space import SearchSpace
from hwnas.training.samplers._slots import BalanceMetric, cost_range, metric_named, sandwiched

__all__ = ["Config", "build"]

N_DRAWN = 512  # archs that those of one bucket are picked from


class Config(StrictModel):
    """Parameters of the sampler; every candidate costs a forward pass."""

    name: Literal["attentive"] = "attentive"
    keep: Literal["best", "worst"] = Field(default="best", description="BestUp or WorstUp")
    k: int = Field(default=3, ge=2, le=64, description="candidates")
    metric: BalanceMetric = Field(default="macs", description="cost that candidates share")
    device: str = Field(default="local", description="of latency_ms: a device with a table")
    n_buckets: int = Field(default=20, ge=1, le=1000, description="of equal width in cost")
    n_random: int = Field(default=2, ge=1, le=64, description="archs per step beside the ends")
    ends: bool = Field(default=True, description="largest and smallest as well (sandwich rule)")


@dataclass(frozen=True)
class _Attentive:
    space: SearchSpace
    config: Config
    metric: CostMetric
    range: tuple[float, float]
    seed: int

    @property
    def in_place(self) -> bool:
        return self.config.ends

    def slots(self, step: int) -> list[Slot]:
        """The ends, if wanted, and n slots of up to k candidates."""
        drawn = [self._draw(step, slot) for slot in range(self.config.n_random)]
        return sandwiched(self.space, drawn, ends=self.config.ends)

    def _draw(self, step: int, slot: int) -> Slot:
        codes = self.space.sample(rng(self.seed, "train/arch", step, slot), N_DRAWN)
        low, high = self.range
        costs = self.metric(codes)
        buckets = np.floor((costs - low) / (high - low or 1) * self.config.n_buckets)
        alike = np.flatnonzero(buckets == buckets[0])  # the first arch names the bucket
        archs = dict.fromkeys(self.space.arch(row) for row in codes[alike])
        return Slot(
            tuple(archs)[: self.config.k], "lowest" if self.config.keep == "best" else "highest"
        )


def build(
    config: Config,
    space: SearchSpace,
    *,
    seed: int,
    n_steps: int,
    metrics: Mapping[str, CostMetric],
) -> ArchSampler:
    """The sampler over `space`; its candidates depend on (seed, step) and the metric.

    Raises:
        UserError: the metric is not known.
    """
    metric = metric_named(config.metric, config.device, metrics)
    return _Attentive(space, config, metric, cost_range(space, metric, seed), seed)
