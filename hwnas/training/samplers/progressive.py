"""Progressive shrinking: choices are freed from the largest down, phase by phase (OFA, 1908.09791).

Once-for-all trains the largest network, then elastic kernels, depths and widths, with distillation
from the finished largest network. Here the largest network continues to train in every step, and is
the teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.core.rng import rng
from hwnas.interfaces import ArchSampler, SamplerContext, Slot
from hwnas.spaces.space import SearchSpace
from hwnas.training.samplers._slots import single

__all__ = ["Config", "Phase", "build"]

ALL = 1000  # more values than any choice has


class Phase(StrictModel):
    """One part of the training, and the values that archs can have in it.

    `free` maps the last part of a choice's name (`kernel`, `depth`, ...) to the number of its
    largest values that are drawn. Other choices keep their largest value, except the resolution,
    which is always free.
    """

    share: float = Field(
        gt=0,
        le=1,
        description="Share of all training steps that this phase takes; the shares of all phases"
        " are scaled to a sum of 1.",
    )
    n_random: int = Field(
        default=1,
        ge=0,
        le=64,
        description="Number of random archs per step in this phase, besides the largest arch.",
    )
    free: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default={},
        description="Number of values, from the largest down, that a choice can have in this"
        " phase. Keys are the last part of a choice's name (`kernel`, `depth`, ...). Choices"
        " without a key keep only their largest value; the resolution is always free.",
    )


class Config(StrictModel):
    """The phases of the training, in their order.

    The default has the phases of Once-for-all, with as many archs per step.
    """

    name: Literal["progressive"] = "progressive"
    phases: tuple[Phase, ...] = Field(
        default=(
            Phase(share=0.2, n_random=0),
            Phase(share=0.2, n_random=1, free={"kernel": ALL}),
            Phase(share=0.05, n_random=2, free={"kernel": ALL, "depth": 2}),
            Phase(share=0.2, n_random=2, free={"kernel": ALL, "depth": ALL}),
            Phase(
                share=0.05,
                n_random=4,
                free={"kernel": ALL, "depth": ALL, "expand": 2, "width": 2, "op": 2},
            ),
            Phase(
                share=0.3,
                n_random=4,
                free={"kernel": ALL, "depth": ALL, "expand": ALL, "width": ALL, "op": ALL},
            ),
        ),
        min_length=1,
    )


@dataclass(frozen=True)
class _Progressive:
    space: SearchSpace
    spaces: tuple[SearchSpace, ...]
    n_random: tuple[int, ...]
    ends: tuple[int, ...]
    seed: int
    in_place: bool = True

    def slots(self, step: int) -> list[Slot]:
        """The largest arch, and random archs with the values that are free at `step`."""
        phase = next((n for n, end in enumerate(self.ends) if step < end), len(self.ends) - 1)
        drawn = [
            self.space.arch(
                self.spaces[phase].sample(1, rng=rng(self.seed, "train/arch", step, slot))[0]
            )
            for slot in range(self.n_random[phase])
        ]
        return single([self.space.largest(), *drawn])


def build(config: Config, context: SamplerContext) -> ArchSampler:
    """Builds the sampler; its archs depend only on (seed, step, n_steps)."""
    total = sum(phase.share for phase in config.phases)
    shares = accumulate(phase.share / total for phase in config.phases)
    return _Progressive(
        context.space,
        tuple(_freed(context.space, phase.free) for phase in config.phases),
        tuple(phase.n_random for phase in config.phases),
        tuple(round(share * context.n_steps) for share in shares),
        context.seed,
    )


def _freed(space: SearchSpace, free: Mapping[str, int]) -> SearchSpace:
    kept = {}
    for choice, allowed in zip(space.choices, space.allowed, strict=True):
        kind = choice.name.rsplit(".", 1)[-1]
        count = ALL if kind == "resolution" else free.get(kind, 1)
        kept[choice.name] = tuple(choice.values[code] for code in allowed[-count:])
    return space.restrict(kept)
