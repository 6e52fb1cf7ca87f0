"""Averages of the weights before and after a training, as in WiSE-FT (2109.01903, section 3)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from hwnas.interfaces import DataModule
from hwnas.nets.bn import recalibrate_in_place
from hwnas.training.evaluate import EVAL_BATCH, evaluate
from hwnas.training.images import resize

__all__ = ["SHARES", "average", "best_average"]

SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)
"""The shares of the weights after the training that `best_average` tries."""


def average(before: nn.Module, after: nn.Module, share: float) -> nn.Module:
    """A network with the weights (1 - share) * before + share * after, share in [0, 1].

    Its BN statistics are averages, too, and do not fit its weights, so recalibrate it. Integer
    tensors are those of `after`.
    """
    mixed = copy.deepcopy(after)
    own, start = mixed.state_dict(), before.state_dict()
    with torch.no_grad():
        for name, tensor in own.items():
            if tensor.is_floating_point():
                tensor.copy_(torch.lerp(start[name].to(tensor), tensor, share))
    return mixed


def best_average(
    before: nn.Module,
    after: nn.Module,
    seen: Sequence[torch.Tensor],
    data: DataModule,
    *,
    px: int,
) -> nn.Module:
    """The average with the smallest validation loss, in eval mode with recalibrated BN.

    A training on few images improves the network on these images, but loses some of the
    pretraining. Averages of both are better than either (`benchmarks/photos_recipe.py`).

    Args:
        before, after: the same network with other weights, on one device.
        seen: batches [B, C, px, px] of training images, which recalibrate BN.
        data: its validation images select the average.
        px: resolution of the network.
    """
    device = next(after.parameters()).device
    found = []
    for share in SHARES:
        network = recalibrate_in_place(average(before, after, share), seen)
        shown = ((resize(x.to(device), px), y) for x, y in data.eval_batches("val", EVAL_BATCH))
        found.append((evaluate(network, shown).cross_entropy, network))
    return min(found, key=lambda pair: pair[0])[1]
