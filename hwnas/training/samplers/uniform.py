"""Single-path uniform: every step one random arch that learns the labels (SPOS, 1904.00420)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.core.rng import rng
from hwnas.interfaces import ArchSampler, CostMetric, Slot
from hwnas.spaces.space import SearchSpace
from hwnas.training.samplers._slots import single

__all__ = ["Config", "build"]


class Config(StrictModel):
    """Parameters of the sampler."""

    name: Literal["uniform"] = "uniform"
    n_archs: int = Field(default=1, ge=1, le=64, description="archs per step")


@dataclass(frozen=True)
class _Uniform:
    space: SearchSpace
    n_archs: int
    seed: int
    in_place: bool = False

    def slots(self, step: int) -> list[Slot]:
        """n archs, all choices uniform and independent."""
        return single(
            self.space.arch(self.space.sample(rng(self.seed, "train/arch", step, slot), 1)[0])
            for slot in range(self.n_archs)
        )


def build(
    config: Config,
    space: SearchSpace,
    *,
    seed: int,
    n_steps: int,
    metrics: Mapping[str, CostMetric],
) -> ArchSampler:
    """The sampler over `space`; its archs depend on (seed, step) alone."""
    return _Uniform(space, config.n_archs, seed)
