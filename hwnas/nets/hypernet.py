"""Weak sharing: a small network that adapts the shared weights to each arch.

WPNAS generates part of the weights of every subnet from its encoding. Here a hypernetwork scales
and shifts the output channels of every layer. BN cancels a scale of its input, so in a layer with
BN the scale and shift of the BN are modulated. In other layers, weight and bias are modulated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from hwnas.nets.elastic import Modulation
from hwnas.spaces.arch import Arch
from hwnas.spaces.space import SearchSpace

__all__ = ["HyperNet"]

_HIDDEN = 16


class HyperNet(nn.Module):
    """Two linear layers: one-hot encoding of an arch -> scale and shift of every modulated layer.

    The second layer is initially zero, so an untrained hypernetwork changes nothing.

    Args:
        space: encodes the archs.
        channels: maps the path of each modulated layer to its number of output channels.
    """

    def __init__(self, space: SearchSpace, channels: Mapping[str, int]) -> None:
        super().__init__()
        self._space, self._channels = space, dict(channels)
        n_codes = sum(len(choice.values) for choice in space.choices)
        self.inner = nn.Linear(n_codes, _HIDDEN)
        self.outer = nn.Linear(_HIDDEN, 2 * sum(channels.values()))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draws the first layer by He initialisation, and sets the second layer to zero."""
        n_active = len(self._space.choices)  # maximum number of ones in an encoding
        self.inner.weight.normal_(0, math.sqrt(2 / n_active), generator=generator)
        for parameter in (self.inner.bias, self.outer.weight, self.outer.bias):
            parameter.zero_()

    def forward(self, arch: Arch) -> dict[str, Modulation]:
        """Maps the path of each modulated layer to its relative scale and shift, [channels]."""
        encoded = torch.from_numpy(self._space.encode(self._space.codes([arch]))[0])
        hidden = torch.relu(self.inner(encoded.to(self.inner.weight)))
        scales, shifts = self.outer(hidden).chunk(2)
        sizes = list(self._channels.values())
        pairs = zip(scales.split(sizes), shifts.split(sizes), strict=True)
        return dict(zip(self._channels, pairs, strict=True))
