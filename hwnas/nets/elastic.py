"""Layers whose weights are stored at their largest shape and run at any smaller shape.

The `Layer` that `lower()` returns for an arch defines the shape of a call; the module has no active
state. Forward pass, extraction and gradients all get weights through `sliced`. Smaller layers use
the first channels (Once-for-all 1908.09791 section 3.2, BigNAS 2003.11142) and the centre of the
kernel, multiplied by a learned transform per kernel size (1908.09791 section 3.2, "elastic kernel
size").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwnas.nets.depthwise import depthwise_conv2d
from hwnas.nets.pointwise import pointwise_conv2d
from hwnas.spaces.ops import Layer, OpSpec

__all__ = [
    "ACTIVATIONS",
    "KEEPING",
    "WEIGHTLESS",
    "Elastic",
    "ElasticBatchNorm2d",
    "ElasticConv2d",
    "ElasticLinear",
    "Modulation",
    "global_mean",
    "window_means",
]

Modulation: TypeAlias = tuple[Tensor, Tensor]
"""Relative scale and shift of the output channels of a layer, [channels]; from the hypernetwork."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu_,
    "relu6": lambda x: F.relu6(x, inplace=True),
    "hard_swish": F.hardswish,
    "swish": F.silu,
    "hard_sigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
}

KEEPING = ACTIVATIONS | {"relu": F.relu, "relu6": F.relu6}
"""`ACTIVATIONS`, but no function works in place."""


class ElasticConv2d(nn.Module):
    """A convolution for any of `shapes`: [B, in, px, px] -> [B, out, px', px'].

    branches: number of kernels that a depthwise convolution adds up. All but the first have
        a learned scale per channel, initially 0 (online re-parameterisation, 2204.00826). An
        extracted subnet has the sum of the kernels as one kernel.
    """

    def __init__(
        self, shapes: Sequence[Layer], *, kernel_transform: bool, branches: int = 1
    ) -> None:
        super().__init__()
        out_channels = max(shape.out_channels for shape in shapes)
        in_channels = max(shape.in_channels // shape.groups for shape in shapes)
        self.kernels = sorted({shape.kernel for shape in shapes}, reverse=True)
        kernel = self.kernels[0]
        self._fan_out = kernel**2 * max(shape.out_channels // shape.groups for shape in shapes)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel, kernel))
        has_bias = any(shape.has_bias for shape in shapes)
        self.bias = nn.Parameter(torch.empty(out_channels)) if has_bias else None
        is_depthwise = all(shape.groups == shape.in_channels > 1 for shape in shapes)
        n_more = branches - 1 if is_depthwise else 0
        more = torch.empty(n_more, *self.weight.shape)
        self.branches = nn.Parameter(more) if n_more else None
        self.scales = nn.Parameter(torch.empty(n_more, out_channels)) if n_more else None
        self.transforms = nn.ParameterDict()
        if kernel_transform:
            for large, small in pairwise(self.kernels):
                self.transforms[f"{large}to{small}"] = nn.Parameter(torch.empty(small**2, small**2))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draws He weights by the fan-out of a group, as timm; kernel transforms: identity."""
        self.weight.normal_(0, math.sqrt(2 / self._fan_out), generator=generator)
        if self.bias is not None:
            self.bias.zero_()
        if self.branches is not None and self.scales is not None:
            self.branches.normal_(0, math.sqrt(2 / self._fan_out), generator=generator)
            self.scales.zero_()
        for transform in self.transforms.values():
            nn.init.eye_(transform)

    def sliced(
        self, layer: Layer, modulation: Modulation | None = None, *, merged: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Weight [out, in / groups, kernel, kernel] and bias [out] of one layer.

        merged: whether the branches are added to the weight. If not, the weight is a view of the
            parameter, unless a kernel transform or `modulation` changes it.
        """
        weight = _first(self.weight, layer.out_channels, layer.in_channels // layer.groups)
        if merged and self.branches is not None and self.scales is not None:
            branches, scales = (part[:, : len(weight)] for part in (self.branches, self.scales))
            weight = weight + (scales[..., None, None, None] * branches).sum(0)
        for large, small in pairwise(self.kernels):
            if small < layer.kernel:
                break
            # in windows of even size, the extra row and column come last
            edge = (large - small + 1) // 2
            weight = weight[:, :, edge : edge + small, edge : edge + small]
            if self.transforms:
                flat = weight.reshape(-1, small**2)
                weight = (flat @ self.transforms[f"{large}to{small}"].T).reshape(weight.shape)
        bias = self.bias if layer.has_bias else None
        first = None if bias is None else _first(bias, layer.out_channels)
        return _modulated(weight, first, modulation)

    def forward(self, x: Tensor, layer: Layer, modulation: Modulation | None = None) -> Tensor:
        """Convolves with the weights of `layer`."""
        weight, bias = self.sliced(layer, modulation)
        if layer.pad_more:
            x = F.pad(x, (0, layer.pad_more, 0, layer.pad_more))
        if layer.groups == layer.out_channels == layer.in_channels and bias is None:
            return depthwise_conv2d(x, weight, layer.stride, layer.padding, layer.dilation)
        if layer.kernel == layer.stride == layer.groups == 1:
            return pointwise_conv2d(x, weight, bias)
        return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)


class ElasticBatchNorm2d(nn.Module):
    """Normalises by the statistics of the batch; uses the first channels of scale and shift.

    There are no running statistics, because they would mix the statistics of many archs.
    """

    def __init__(self, shapes: Sequence[Layer], *, eps: float = 1e-5) -> None:
        super().__init__()
        self._eps = eps
        channels = max(shape.out_channels for shape in shapes)
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Sets scales to 1 and shifts to 0."""
        self.weight.fill_(1)
        self.bias.zero_()

    def sliced(
        self, layer: Layer, modulation: Modulation | None = None, *, merged: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Scale [out] and shift [out] of one layer."""
        weight, bias = (_first(value, layer.out_channels) for value in (self.weight, self.bias))
        return _modulated(weight, bias, modulation)

    def forward(self, x: Tensor, layer: Layer, modulation: Modulation | None = None) -> Tensor:
        """Batch normalisation of [B, out, px, px] in training mode."""
        weight, bias = self.sliced(layer, modulation)
        return F.batch_norm(x, None, None, weight, bias, training=True, eps=self._eps)


class ElasticLinear(nn.Module):
    """A linear layer for any of `shapes`: [B, in, 1, 1] -> [B, out]; its bias is optional."""

    def __init__(self, shapes: Sequence[Layer]) -> None:
        super().__init__()
        out_features = max(shape.out_channels for shape in shapes)
        in_features = max(shape.in_channels for shape in shapes)
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        has_bias = any(shape.has_bias for shape in shapes)
        self.bias = nn.Parameter(torch.empty(out_features)) if has_bias else None

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draws weights from +-1 / sqrt(classes) and sets the bias to 0, as timm's EfficientNet.

        A layer without a bias, as in recurrent cells, uses +-1 / sqrt(inputs) instead.
        """
        bound = 1 / math.sqrt(self.weight.shape[self.bias is None])
        self.weight.uniform_(-bound, bound, generator=generator)
        if self.bias is not None:
            self.bias.zero_()

    def sliced(
        self, layer: Layer, modulation: Modulation | None = None, *, merged: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Weight [out, in] and bias [out] of one layer."""
        weight = _first(self.weight, layer.out_channels, layer.in_channels)
        bias = None if self.bias is None else _first(self.bias, layer.out_channels)
        return _modulated(weight, bias, modulation)

    def forward(self, x: Tensor, layer: Layer, modulation: Modulation | None = None) -> Tensor:
        """Applies the weights of `layer` to [B, in, 1, 1]."""
        return F.linear(x.flatten(1), *self.sliced(layer, modulation))


Elastic: TypeAlias = ElasticConv2d | ElasticBatchNorm2d | ElasticLinear


def _first(whole: Tensor, *sizes: int) -> Tensor:
    """The first entries of the leading dimensions; `whole` itself if nothing is cut off."""
    for dim, size in enumerate(sizes):
        if size < whole.shape[dim]:
            whole = whole.narrow(dim, 0, size)
    return whole


def _modulated(
    weight: Tensor, bias: Tensor | None, modulation: Modulation | None
) -> tuple[Tensor, Tensor | None]:
    """`weight` * (1 + scale) and `bias` + shift, of the first output channels."""
    if modulation is None:
        return weight, bias
    scale, shift = (_first(value, len(weight)) for value in modulation)
    weight = weight * (1 + scale).view(-1, *[1] * (weight.ndim - 1))
    return weight, None if bias is None else bias + shift


def global_mean(x: Tensor) -> Tensor:
    """Mean over the map: [B, C, px, px] -> [B, C, 1, 1].

    The gradient is an expanded tensor, which takes no memory. The gradient of torch is written at
    full size, and its layout makes the layers below lose channels_last.
    """
    mean: Tensor = _GlobalMean.apply(x)
    return mean


def window_means(x: Tensor, kernel: int, stride: int, padding: int = 0) -> Tensor:
    """Average pooling; padded pixels do not count.

    Without padding, a strided pooling also averages the incomplete windows at the border.
    """
    is_open = stride > 1 and not padding
    return F.avg_pool2d(x, kernel, stride, padding, is_open, count_include_pad=False)


def _window_maxima(op: OpSpec, x: Tensor) -> Tensor:
    is_open = op.stride > 1 and not op.padding
    return F.max_pool2d(x, op.kernel, op.stride, op.padding, ceil_mode=is_open)


WEIGHTLESS: dict[str, Callable[[OpSpec, Tensor], Tensor]] = {
    "pool": lambda op, x: global_mean(x),
    "avg_pool": lambda op, x: window_means(x, op.kernel, op.stride, op.padding),
    "max_pool": _window_maxima,
    "cut": lambda op, x: x[:, : op.out_channels],
}
"""Maps each kind of operator without weights and BN to its forward function."""


class _GlobalMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return x.mean((2, 3), keepdim=True)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        *_, height, width = ctx.shape
        mean: Tensor = grads[0] / (height * width)
        return mean.expand(ctx.shape)
