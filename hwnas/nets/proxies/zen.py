"""Zen-Score: sensitivity of random networks to small changes of the input (2102.01063)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.interfaces import Proxy, ProxyContext

if TYPE_CHECKING:
    import torch

__all__ = ["Config", "build", "zen_score"]

QUICK = {"repeats": 2, "batch_size": 4}


class Config(StrictModel):
    """Settings. The defaults are those of PGONAS (2206.13329), except for the resolution.

    PGONAS scores all archs at 224 px; here, the default is the own resolution of each arch.
    """

    name: Literal["zen"] = "zen"
    repeats: int = Field(
        default=32,
        ge=1,
        le=1024,
        description="Number of draws of random weights and images, whose scores are averaged.",
    )
    batch_size: int = Field(default=16, ge=2, le=1024)
    """Number of random images per draw of weights."""
    gamma: float = Field(
        default=0.01, gt=0, description="Factor of the noise that is added to the images."
    )
    px: int | None = Field(
        default=None,
        ge=8,
        le=1024,
        description="Resolution in px at which all archs are scored; null: the own resolution of"
        " each arch.",
    )


def build(config: Config, context: ProxyContext) -> Proxy:
    """A proxy that returns Zen-Scores of archs; always on noise."""
    from hwnas.nets.proxies._networks import NetworkProxy

    def score(model: torch.nn.Module, px: int, seed: int) -> float:
        return zen_score(
            model,
            config.px or px,
            repeats=config.repeats,
            batch_size=config.batch_size,
            gamma=config.gamma,
            seed=seed,
        )

    return NetworkProxy(context.space, context.seed, "zen", score, has_weights=False)


def zen_score(
    model: torch.nn.Module, px: int, *, repeats: int, batch_size: int, gamma: float, seed: int
) -> float:
    """Mean over repeats of log E sum |f(x) - f(x + gamma e)| + sum over BN of log sqrt(variance).

    f: the features before the pooling, without residual connections.
    x, e: standard normal, as are the weights of convolutions and linear layers. BN scales are 1 and
        shifts 0.
    variance: variance of the input of a BN over the batch x, averaged over channels (2102.01063,
        algorithm 1).

    The weights of the model are overwritten.
    """
    import torch
    from torch import nn

    from hwnas.nets.proxies._networks import features_of, noise

    variances: list[torch.Tensor] = []

    def record(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        variances.append(inputs[0].var(dim=(0, 2, 3), unbiased=False).mean())

    model.train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in model.modules():
        if hasattr(module, "has_skip"):
            setattr(module, "has_skip", False)  # noqa: B010 - mypy takes it for a submodule
    channels = next(model.parameters()).shape[1]  # input channels of the stem
    generator = torch.Generator().manual_seed(seed)
    total = 0.0
    with torch.inference_mode():
        for _ in range(repeats):
            for module in model.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    module.weight.normal_(generator=generator)
                    if module.bias is not None:
                        module.bias.zero_()
                elif isinstance(module, nn.BatchNorm2d):
                    module.weight.fill_(1)
                    module.bias.zero_()
            x, e = (noise((batch_size, channels, px, px), generator) for _ in range(2))
            hooks = [norm.register_forward_pre_hook(record) for norm in norms]
            plain = features_of(model, x)
            for hook in hooks:
                hook.remove()
            change = (plain - features_of(model, x + gamma * e)).abs().sum(dim=(1, 2, 3)).mean()
            total += float(change.log()) + sum(float(v.log()) / 2 for v in variances)
            variances.clear()
    return total / repeats
