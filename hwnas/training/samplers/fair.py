"""Strict fairness: in every step each value of each choice is trained once (FairNAS, 1907.01845).

A step has as many archs as the choice with the most values has values. All learn from the labels,
and the weights are updated once for all of them. A choice with fewer values repeats them in rounds,
each in a new random order. So the counts of its values never differ by more than one. Values of
inactive choices (blocks beyond the depth) are not trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hwnas.core.config import StrictModel
from hwnas.core.rng import rng
from hwnas.interfaces import ArchSampler, SamplerContext, Slot
from hwnas.spaces.space import SearchSpace
from hwnas.training.samplers._slots import single

__all__ = ["Config", "build"]


class Config(StrictModel):
    """No settings."""

    name: Literal["fair"] = "fair"


@dataclass(frozen=True)
class _Fair:
    space: SearchSpace
    seed: int
    in_place: bool = False

    def slots(self, step: int) -> list[Slot]:
        """One arch for every value of the choice with the most values."""
        n_archs = max(len(allowed) for allowed in self.space.allowed)
        columns = []
        for column, allowed in enumerate(self.space.allowed):
            first = step * n_archs
            rounds = range(first // len(allowed), (first + n_archs - 1) // len(allowed) + 1)
            dealt = np.concatenate(
                [
                    rng(self.seed, "train/arch", "fair", column, turn).permutation(allowed)
                    for turn in rounds
                ]
            )
            skip = first - rounds[0] * len(allowed)
            columns.append(dealt[skip : skip + n_archs])
        return single(self.space.arch(row) for row in np.stack(columns, axis=1))


def build(config: Config, context: SamplerContext) -> ArchSampler:
    """Builds the sampler; its archs depend only on (seed, step)."""
    return _Fair(context.space, context.seed)
