"""Pieces that samplers share: slots of single archs, the ends of a sandwich, metrics by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.interfaces import CostMetric, FloatArray, Slot
from hwnas.spaces.arch import Arch
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["BalanceMetric", "cost_range", "metric_named", "sandwiched", "single", "skewed"]

BalanceMetric = Literal["macs", "params", "latency_ms"]

N_PROBES = 2048  # archs that a metric's range is looked for in
SKEW = 6.0


def single(archs: Iterable[Arch]) -> list[Slot]:
    """A slot for every arch, with no choice left."""
    return [Slot((arch,)) for arch in archs]


def sandwiched(space: SearchSpace, drawn: list[Slot], *, ends: bool) -> list[Slot]:
    """Largest (the teacher) and smallest in front of what was drawn, if `ends`."""
    return [*single([space.largest(), space.smallest()]), *drawn] if ends else drawn


def metric_named(
    metric: BalanceMetric, device: str, metrics: Mapping[str, CostMetric]
) -> CostMetric:
    """The price of that name; `device` matters to latency alone.

    Raises:
        UserError: it is not known, for lack of a latency table.
    """
    key = f"{metric}@{device}" if metric == "latency_ms" else metric
    if key not in metrics:
        raise UserError(
            f"the sampler has no metric {key!r}",
            expected=f"one of {', '.join(sorted(metrics)) or '-'}",
            where="train.sampler",
            fix=f"add {device!r} to `devices`, or `hwnas profile {device}` first",
        )
    return metrics[key]


def cost_range(space: SearchSpace, metric: CostMetric, seed: int) -> tuple[float, float]:
    """Least and greatest cost of the ends of the space and of archs between them."""
    codes = np.concatenate(
        [
            space.codes([space.smallest(), space.largest()]),
            skewed(space, rng(seed, "train/cost range"), N_PROBES),
        ]
    )
    costs: FloatArray = metric(codes)
    return float(costs.min()), float(costs.max())


def skewed(space: SearchSpace, random: np.random.Generator, n: int) -> Codes:
    """n archs from the smallest to the largest: every arch favours large or small values.

    Independent uniform choices average out: hardly any arch is near the ends. Here every arch draws
    a bias b from [-SKEW, SKEW], and each choice the value number i of m with odds
    exp(b * i / (m - 1)).
    """
    bias = random.uniform(-SKEW, SKEW, size=(n, 1))
    columns = []
    for allowed in space.allowed:
        odds = np.exp(bias * np.linspace(0, 1, len(allowed)))
        ends = (odds / odds.sum(axis=1, keepdims=True)).cumsum(axis=1)[:, :-1]
        index = (random.random((n, 1)) >= ends).sum(axis=1)
        columns.append(np.asarray(allowed, dtype=np.int16)[index])
    return space.normalise(np.stack(columns, axis=1))
