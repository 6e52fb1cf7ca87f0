"""Sandwich rule: largest, smallest, n random archs (BigNAS, 2003.11142, section 3.1)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.interfaces import ArchSampler, SamplerContext
from hwnas.training.samplers._slots import SlotBySlot, uniform_arch

__all__ = ["Config", "build"]


class Config(StrictModel):
    """Parameters of the sampler."""

    name: Literal["sandwich"] = "sandwich"
    n_random: int = Field(
        default=2,
        ge=0,
        le=64,
        description="Number of random archs per step, besides the largest and the smallest arch.",
    )


def build(config: Config, context: SamplerContext) -> ArchSampler:
    """Builds the sampler: the largest arch (the teacher), the smallest, then random archs.

    Its archs depend only on (seed, step).
    """
    draw = uniform_arch(context.space)
    return SlotBySlot(context.space, context.seed, config.n_random, True, draw)
