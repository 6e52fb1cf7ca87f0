"""Sandwich rule: largest, smallest, n random archs (BigNAS, 2003.11142, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.core.rng import rng
from hwnas.interfaces import ArchSampler, CostMetric, Slot
from hwnas.spaces.space import SearchSpace
from hwnas.training.samplers._slots import sandwiched, single

__all__ = ["Config", "build"]


class Config(StrictModel):
    """Parameters of the sampler."""

    name: Literal["sandwich"] = "sandwich"
    n_random: int = Field(default=2, ge=0, le=64, description="random archs per step")


@dataclass(frozen=True)
class _Sandwich:
    space: SearchSpace
    n_random: int
    seed: int
    in_place: bool = True

    def slots(self, step: int) -> list[Slot]:
        """Largest first (it teaches the others), then the smallest, then the random ones."""
        drawn = [
            self.space.arch(self.space.sample(rng(self.seed, "train/arch", step, slot), 1)[0])
            for slot in range(self.n_random)
        ]
        return sandwiched(self.space, single(drawn), ends=True)


def build(
    config: Config,
    space: SearchSpace,
    *,
    seed: int,
    n_steps: int,
    metrics: Mapping[str, CostMetric],
) -> ArchSampler:
    """The sampler over `space`; its archs depend on (seed, step) alone."""
    return _Sandwich(space, config.n_random, seed)
