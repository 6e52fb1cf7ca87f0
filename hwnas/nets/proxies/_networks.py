"""Proxies that build every arch with new weights and compute one score."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.core.errors import UserError
from hwnas.core.rng import stable_seed
from hwnas.interfaces import FloatArray
from hwnas.nets import graph_net, plain_net
from hwnas.nets.subnet import build_subnet
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import resolution
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["NetworkProxy", "activations_of", "features_of", "images_at", "noise"]


@dataclass(frozen=True)
class NetworkProxy:
    """An `interfaces.Proxy` that builds networks; its scores depend only on (seed, arch).

    score: function (network in training mode, its resolution in px, seed) -> score.
    has_weights: whether the network is initialised. If not, `score` must set all weights itself.
    """

    space: SearchSpace
    seed: int
    name: str
    score: Callable[[nn.Module, int, int], float]
    has_weights: bool = True
    _known: dict[Arch, float] = field(default_factory=dict, repr=False)

    def __call__(self, codes: Codes) -> FloatArray:
        """Scores, float64 [n].

        Raises:
            UserError: a score is not finite; names the arch.
        """
        return np.array([self._of(self.space.arch(row)) for row in codes], dtype=np.float64)

    def _of(self, arch: Arch) -> float:
        if arch not in self._known:
            stream = stable_seed(self.seed, "proxy", self.name, arch.key)
            model = build_subnet(self.space, arch, seed=stream if self.has_weights else None)
            value = self.score(model.train(), resolution(self.space, arch), stream)
            if not math.isfinite(value):
                raise UserError(
                    f"the score of an arch by the proxy {self.name} is not finite",
                    expected="a finite number",
                    found=value,
                    where=f"arch {arch.key}",
                )
            self._known[arch] = value
        return self._known[arch]


def noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Standard normal images, channels_last."""
    drawn = torch.randn(shape, generator=generator)
    return drawn.contiguous(memory_format=torch.channels_last)


def images_at(images: Tensor | None, n: int, channels: int, px: int, seed: int) -> Tensor:
    """n of the given images at px, or n noise images if none are given: [n, C, px, px]."""
    if images is None:
        return noise((n, channels, px, px), torch.Generator().manual_seed(seed))
    x = images[:n]
    if x.shape[-1] != px:
        x = nn.functional.interpolate(x, (px, px), mode="bilinear", antialias=True)
    return x.contiguous(memory_format=torch.channels_last)


def features_of(model: nn.Module, x: Tensor) -> Tensor:
    """The input of the global pooling: [B, C, px', px']."""
    if isinstance(model, graph_net.GraphNetwork):
        return model.features(x)
    if not isinstance(model, plain_net.Network):
        found: Tensor = model.forward_features(x)  # type: ignore[operator]  # a timm model
        return found
    found = model.blocks(model.act1(model.bn1(model.conv_stem(x))))
    if not model.has_pooled_head:
        found = model.act2(model.bn2(model.conv_head(found)))
    return found


def activations_of(model: nn.Module) -> list[nn.Module]:
    """The activation modules of the network, without the gates of SE."""
    names = ("ReLU", "ReLU6", "Hardswish", "HardSwish", "SiLU", "Swish")
    return [
        module
        for path, module in model.named_modules()
        if type(module).__name__.removesuffix("Me") in names and ".se." not in f".{path}."
    ]
