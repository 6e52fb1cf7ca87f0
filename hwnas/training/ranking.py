"""Ranking loss on pairs of archs: a prior predicts which one is better (PGONAS 2206.13329).

The prior is a proxy, such as MACs. Every pair costs two forward passes. If the arch that the prior
predicts to be better has the higher loss, it is trained to have the lower loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.interfaces import Proxy
from hwnas.nets.supernet import Supernet
from hwnas.spaces.arch import Arch
from hwnas.spaces.space import SearchSpace
from hwnas.training.losses import ranking_loss
from hwnas.training.optional_sections import RankingConfig
from hwnas.training.precision import FULL, Precision
from hwnas.training.sandwich import label_loss

__all__ = ["Pair", "PairSampler", "pair_weight", "ranking_step"]

Pair = tuple[Arch, Arch]
"""Worse and better arch, by the prior."""

N_RIVALS = 64  # drawn for every first arch, to find one at a sufficient distance
N_TIES = 16  # rivals with the same prior before giving up


@dataclass(frozen=True)
class PairSampler:
    """Draws random pairs of archs to which the prior gives different values; the worse is first.

    prior: a proxy that predicts which arch is better; higher values are better.
    """

    space: SearchSpace
    prior: Proxy
    config: RankingConfig
    seed: int

    def pairs(self, step: int) -> list[Pair]:
        """The pairs of step `step`; each one depends only on (seed, step, slot).

        Raises:
            UserError: the prior gives the same value to all tried archs.
        """
        return [self._pair(step, slot) for slot in range(self.config.pairs)]

    def _pair(self, step: int, slot: int) -> Pair:
        stream = rng(self.seed, "train/pair", step, slot)
        first, rivals = self.space.sample(1, rng=stream), self.space.sample(N_RIVALS, rng=stream)
        distance = (rivals != first).sum(axis=1)
        far = np.flatnonzero(distance >= self.config.min_distance)
        if len(far) == 0:  # use the maximum distance
            far = np.argsort(-distance, kind="stable")
        value = float(self.prior(first)[0])
        for row in far[:N_TIES]:
            rival = rivals[row : row + 1]
            other = float(self.prior(rival)[0])
            if other != value:
                archs = self.space.arch(first[0]), self.space.arch(rival[0])
                return archs if value < other else archs[::-1]
        raise UserError(
            "the prior of the ranking loss gives all archs the same value",
            expected="archs of different values",
            found=f"{len(far[:N_TIES]) + 1} archs of value {value}",
            where="train.ranking.prior",
            fix="choose another prior, or turn off the ranking loss",
        )


def pair_weight(config: RankingConfig, progress: float) -> float:
    """Weight (lambda) of the ranking loss at `progress` in [0, 1] of the training.

    `warmup` is the best schedule of PGONAS: min(2, epoch / 10) for 70 epochs, with peak 2 and ramp
    2 / 7. Sine and trapezoid start and end at 0; PGONAS does not define their exact shapes.
    """
    rise = min(1.0, progress / config.ramp)
    shapes = {
        "constant": 1.0,
        "warmup": rise,
        "sine": math.sin(math.pi * progress),
        "trapezoid": min(rise, (1 - progress) / config.ramp),
    }
    return config.peak * shapes[config.schedule]


def ranking_step(
    supernet: Supernet,
    x: torch.Tensor,
    y: torch.Tensor,
    pairs: Sequence[Pair],
    *,
    weight: float,
    both: bool = False,
    precision: Precision = FULL,
) -> list[float]:
    """Adds the gradient of weight * sum of ranking losses; two forward passes per pair.

    Args:
        supernet: in train mode.
        x: normalised images [B, C, base_px, base_px].
        y: labels [B].
        pairs: pairs with the worse arch first.
        weight: lambda.
        both: whether the worse arch also gets a gradient, which increases its loss.
        precision: precision of forward and backward passes.

    Returns:
        The ranking loss of every pair, without the weight, in nats.
    """
    losses = []
    for worse, better in pairs:
        with torch.set_grad_enabled(both):
            loss_of_worse = label_loss(supernet, x, y, worse, precision=precision)
        loss_of_better = label_loss(supernet, x, y, better, precision=precision)
        loss = ranking_loss(loss_of_better, loss_of_worse)
        losses.append(loss.item())
        if losses[-1] != 0 and weight != 0:  # else its gradient is zero
            precision.backward(loss * weight)
    return losses
