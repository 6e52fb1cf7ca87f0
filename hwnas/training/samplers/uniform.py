"""Single-path uniform: one random arch per step, which learns from labels (SPOS, 1904.00420)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.interfaces import ArchSampler, SamplerContext
from hwnas.training.samplers._slots import SlotBySlot, uniform_arch

__all__ = ["Config", "build"]


class Config(StrictModel):
    """Parameters of the sampler."""

    name: Literal["uniform"] = "uniform"
    n_archs: int = Field(default=1, ge=1, le=64, description="Number of random archs per step.")


def build(config: Config, context: SamplerContext) -> ArchSampler:
    """Builds the sampler; all choices are uniform and independent.

    Its archs depend only on (seed, step).
    """
    draw = uniform_arch(context.space)
    return SlotBySlot(context.space, context.seed, config.n_archs, False, draw)
