"""Computes the batch-norm statistics that an extracted subnet needs before evaluation."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from copy import deepcopy

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hwnas.core.errors import UserError

with warnings.catch_warnings():  # of what it calls at its import, which no user can change
    warnings.simplefilter("ignore", FutureWarning)
    from fvcore.nn.precise_bn import update_bn_stats

__all__ = ["recalibrate", "recalibrate_in_place"]


def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """A copy of `model` in eval mode, with BN statistics estimated from `batches`.

    Every layer gets the mean and variance of all its inputs, pooled over the batches (of any
    sizes). Each batch runs with its own statistics, as in training ("Rethinking Batch in
    BatchNorm", 2105.07576, appendix). Dropout is off. `model` does not change.

    Args:
        model: a static network with BN layers that keep running statistics.
        batches: images [B, C, px, px] at the resolution of the model, on any device.

    Raises:
        UserError: there are no batches.
    """
    return recalibrate_in_place(deepcopy(model), batches)


def recalibrate_in_place(model: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Like `recalibrate`, but changes and returns the given network instead of a copy.

    This saves the time of the copy, which is longer than recalibration on a few small images.
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
