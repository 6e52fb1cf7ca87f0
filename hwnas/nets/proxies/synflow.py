"""SynFlow: sum over all paths of the products of absolute weights (2006.05467)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from hwnas.core.config import StrictModel
from hwnas.interfaces import Proxy, ProxyContext

if TYPE_CHECKING:
    import torch

__all__ = ["Config", "build", "synflow_score"]


class Config(StrictModel):
    """No settings."""

    name: Literal["synflow"] = "synflow"


def build(config: Config, context: ProxyContext) -> Proxy:
    """A proxy that returns SynFlow scores of archs; needs no images."""
    from hwnas.nets.proxies._networks import NetworkProxy

    return NetworkProxy(
        context.space, context.seed, "synflow", lambda model, px, seed: synflow_score(model, px)
    )


def synflow_score(model: torch.nn.Module, px: int) -> float:
    """log of the sum over weights of |w dR/dw|; R: sum of the outputs for an image of ones.

    2006.05467, section 4, with absolute weights and without BN. 2101.08134, section 3, uses it as a
    score of whole networks. The logarithm keeps the order. The weights of the model are
    overwritten.
    """
    import torch
    from torch import nn

    model = model.eval().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # disabled: scale 1, shift 0, statistics 0 and 1
            module.reset_running_stats()
            module.eps = 0.0
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    weights = [
        module.weight for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    channels = weights[0].shape[1]
    with torch.enable_grad():
        total = model(torch.ones(1, channels, px, px, dtype=torch.float64)).sum()
        gradients = torch.autograd.grad(total, weights)
    score = sum(
        ((w * g).abs().sum() for w, g in zip(weights, gradients, strict=True)),
        torch.zeros((), dtype=torch.float64),
    )
    return float(score.detach().log())
