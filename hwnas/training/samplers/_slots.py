"""Shared code of samplers: slots drawn one by one, costs by name, archs of all sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.core.errors import UserError
from hwnas.core.metrics import MetricKey
from hwnas.core.rng import rng
from hwnas.interfaces import CostMetric, FloatArray, SamplerContext, Slot
from hwnas.spaces.arch import Arch
from hwnas.spaces.graphs import is_connected, smallest_connected
from hwnas.spaces.space import Codes, SearchSpace

__all__ = [
    "BalanceMetric",
    "CostConfig",
    "SlotBySlot",
    "cost_range",
    "metric_and_range",
    "metric_named",
    "single",
    "skewed",
    "uniform_arch",
]

BalanceMetric = Literal["macs", "params", "latency_ms"]

N_PROBES = 2048  # archs that determine the range of a metric
SKEW = 6.0
MAX_REDRAWS = 100  # a space may have no connected arch at all


def single(archs: Iterable[Arch]) -> list[Slot]:
    """A slot for every arch, with the arch as the only candidate."""
    return [Slot((arch,)) for arch in archs]


@dataclass(frozen=True)
class SlotBySlot:
    """An `ArchSampler` whose n slots are drawn independently, each from its own stream.

    ends: whether the largest arch, the teacher of the others, and the smallest arch come first (the
        sandwich rule). Without them, all archs learn from the labels.
    """

    space: SearchSpace
    seed: int
    n: int
    ends: bool
    draw: Callable[[np.random.Generator], Slot]

    @property
    def in_place(self) -> bool:
        """See `ArchSampler.in_place`."""
        return self.ends

    def slots(self, step: int) -> list[Slot]:
        """See `ArchSampler.slots`."""
        drawn = [self.draw(rng(self.seed, "train/arch", step, slot)) for slot in range(self.n)]
        first = [self.space.largest(), smallest_connected(self.space)] if self.ends else []
        return [*single(first), *drawn]


def uniform_arch(space: SearchSpace) -> Callable[[np.random.Generator], Slot]:
    """A function that draws a slot with one arch; all choices are uniform and independent.

    Archs without a path from the image to the logits are drawn again, because they cannot learn.
    """

    def draw(stream: np.random.Generator) -> Slot:
        codes = space.sample(1, rng=stream)
        for _ in range(MAX_REDRAWS):
            if is_connected(space, codes).all():
                break
            codes = space.sample(1, rng=stream)
        return Slot((space.arch(codes[0]),))

    return draw


class CostConfig(StrictModel):
    """Settings of samplers that use the cost of archs."""

    metric: BalanceMetric = Field(
        default="macs",
        description="The cost that the sampler considers: MACs, parameters, or estimated latency.",
    )
    device: str = Field(
        default="local",
        description="Device whose latency table is used; only for the metric latency_ms.",
    )
    n_random: int = Field(
        default=2,
        ge=1,
        le=64,
        description="Number of random archs per step, besides those of `ends`.",
    )
    ends: bool = Field(
        default=True,
        description="Whether the largest and the smallest arch are trained in every step (sandwich"
        " rule).",
    )


def metric_and_range(
    config: CostConfig, context: SamplerContext
) -> tuple[CostMetric, float, float]:
    """The metric in the settings, and its range over the space.

    Raises:
        UserError: as in `metric_named`.
    """
    metric = metric_named(config, context)
    return metric, *cost_range(context.space, metric, context.seed)


def metric_named(config: CostConfig, context: SamplerContext) -> CostMetric:
    """The metric in the settings; `device` only applies to latency.

    Raises:
        UserError: the metric is unknown, for example without a latency table.
    """
    metric, device, metrics = config.metric, config.device, context.metrics
    key = MetricKey.of(metric, device)
    if key not in metrics:
        raise UserError(
            f"the cost {key!r} of the sampler is not known",
            expected=f"one of {', '.join(sorted(metrics)) or '-'}",
            where="train.sampler",
            fix=f"add {device!r} to `devices`, and profile it first",
        )
    return metrics[key]


def cost_range(space: SearchSpace, metric: CostMetric, seed: int) -> tuple[float, float]:
    """Minimum and maximum cost, from the ends of the space and archs between them."""
    codes = np.concatenate(
        [
            space.codes([space.smallest(), space.largest()]),
            skewed(space, rng(seed, "train/cost range"), N_PROBES),
        ]
    )
    costs: FloatArray = metric(codes)
    return float(costs.min()), float(costs.max())


def skewed(space: SearchSpace, random: np.random.Generator, n: int) -> Codes:
    """n archs from the smallest to the largest: every arch prefers large or small values.

    Independent uniform choices average out, so hardly any arch is near the ends. Here every arch
    draws a bias b from [-SKEW, SKEW], and each choice picks value i of m with odds exp(b * i / (m -
    1)).
    """
    bias = random.uniform(-SKEW, SKEW, size=(n, 1))
    columns = []
    for allowed in space.allowed:
        odds = np.exp(bias * np.linspace(0, 1, len(allowed)))
        ends = (odds / odds.sum(axis=1, keepdims=True)).cumsum(axis=1)[:, :-1]
        index = (random.random((n, 1)) >= ends).sum(axis=1)
        columns.append(np.asarray(allowed, dtype=np.int16)[index])
    return space.normalise(np.stack(columns, axis=1))
