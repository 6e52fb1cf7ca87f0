"""Exact batch-norm statistics of a subnet, which an extracted subnet needs before evaluation."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy

from fvcore.nn.precise_bn import update_bn_stats
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hwnas.core.errors import UserError

__all__ = ["recalibrate", "recalibrate_in_place"]


def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """A copy of `model`, in eval mode, with its BN statistics estimated anew over `batches`.

    Every layer gets the mean and variance of all its inputs pooled over the batches (of any sizes),
    where each batch ran with its own statistics, as in training ("Rethinking Batch in BatchNorm",
    2105.07576, appendix). Dropout is off; the model itself is not touched.

    Args:
        model: a static network with BN layers that keep running statistics.
        batches: images [B, C, px, px] of the model's resolution, on any device.

    Raises:
        UserError: there are no batches.
    """
    return recalibrate_in_place(deepcopy(model), batches)


def recalibrate_in_place(model: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """As `recalibrate`, of a network that nobody else holds: it is changed, and returned.

    Copying the modules of a network takes longer than recalibrating it on a few small images.
    """
    batches = list(batches)
    if not batches:
        raise UserError("BN recalibration needs at least one batch of images", found="none")
    model.eval()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.train()
    device = next(model.parameters()).device
    update_bn_stats(model, (batch.to(device) for batch in batches), num_iters=len(batches))
    return model.eval()
