"""NASWOT: diversity of an untrained network's ReLU patterns over images (2006.04647)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.interfaces import Proxy, ProxyContext

if TYPE_CHECKING:
    import torch

__all__ = ["Config", "build", "naswot_score"]

QUICK = {"batch_size": 8}


class Config(StrictModel):
    """Settings."""

    name: Literal["naswot"] = "naswot"
    batch_size: int = Field(
        default=32,
        ge=2,
        le=1024,
        description="Number of images whose activation patterns are compared.",
    )


def build(config: Config, context: ProxyContext) -> Proxy:
    """A proxy that returns NASWOT scores on the first `images`, or on noise if there are none."""
    from hwnas.nets.proxies._networks import NetworkProxy, images_at

    def score(model: torch.nn.Module, px: int, seed: int) -> float:
        channels = next(model.parameters()).shape[1]
        return naswot_score(model, images_at(context.images, config.batch_size, channels, px, seed))

    return NetworkProxy(context.space, context.seed, "naswot", score)


def naswot_score(model: torch.nn.Module, x: torch.Tensor) -> float:
    """log |det K|, where K[i, j] counts activations with equal state for images i and j.

    2006.04647, section 3: K = N_A - Hamming distance of the binary codes of all N_A activations.
    For activations other than ReLU, the sign of the input is the code.
    """
    import torch

    from hwnas.nets.proxies._networks import activations_of

    alike = torch.zeros(len(x), len(x), dtype=torch.float64)

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        on = (inputs[0] > 0).flatten(1).float()
        off = 1 - on
        alike.add_((on @ on.T + off @ off.T).double())

    hooks = [module.register_forward_pre_hook(count) for module in activations_of(model)]
    with torch.inference_mode():
        model.train()(x)
    for hook in hooks:
        hook.remove()
    return float(torch.linalg.slogdet(alike).logabsdet)
