"""Depthwise convolution with a fast weight gradient on CPUs.

The fast kernel of oneDNN for this gradient requires channels_last, at most three kernel columns,
and an image at least as large as the kernel (`jit_uni_dw_conv_bwd_weights_kernel::init_conf`).
Other cases use code that is up to 20 times slower. Therefore a wider kernel is split into groups of
three columns, which read shifted images. Images that are too small are padded. Kernel taps that
only read padding are left out. The result is the same sum.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

from hwnas.spaces.padding import same_padding

__all__ = ["DepthwiseConv2d", "depthwise_conv2d"]

_FAST_COLUMNS = 3
_CHUNK_BYTES = 4 << 20  # images shifted at a time, so that the copies stay in the cache (measured)


def depthwise_conv2d(
    x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int = 1
) -> Tensor:
    """`F.conv2d(x, weight, None, stride, padding, dilation, channels)` for square kernels and maps.

    x: [B, C, px, px].
    weight: [C, 1, kernel, kernel].

    On CPUs without autocast it uses the fast gradient, which is differentiable once. A dilated
    window whose stride is its dilation reads every second pixel, so that it needs no dilation.
    """
    if x.device.type == "cpu" and torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu"):
        if stride == dilation > 1 and padding % dilation == 0:
            x, stride, padding, dilation = x[..., ::stride, ::stride], 1, padding // dilation, 1
            x = x.contiguous(memory_format=torch.channels_last)
        if weight.shape[-1] > _FAST_COLUMNS and dilation == 1:
            return _Depthwise.apply(x, weight, stride, padding)  # type: ignore[no-any-return]
    return F.conv2d(x, weight, None, stride, padding, dilation, weight.shape[0])


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise `nn.Conv2d` without bias, for square kernels, that calls `depthwise_conv2d`.

    Attributes:
        pads_same: whether maps are padded as in TensorFlow (`Conv2dSame` of timm).
        pad_more: number of zero rows added at the bottom, and of zero columns added on the right.
    """

    pads_same = False
    pad_more = 0

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        """Whether a layer is depthwise and has no bias."""
        channels = conv.in_channels
        return 1 < conv.groups == channels == conv.out_channels and conv.bias is None

    @classmethod
    def of(cls, conv: nn.Conv2d) -> DepthwiseConv2d:
        """The same layer with the same weight."""
        kernel, stride, padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
        channels, dilation = conv.groups, conv.dilation[0]
        sizes = kernel, stride, padding, dilation
        new = cls(channels, channels, *sizes, groups=channels, bias=False, device="meta")
        new.weight = conv.weight
        new.pads_same = isinstance(conv, Conv2dSame)
        new.pad_more = getattr(conv, "pad_more", 0)
        return new

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, px, px] -> [B, C, px', px']; in eval mode (export) the same as `nn.Conv2d`."""
        before, after = 0, self.pad_more
        if self.pads_same:
            before, more = same_padding(int(x.shape[-1]), self.kernel_size[0], self.stride[0])
            after = before + more
        if after:
            x = F.pad(x, (before, after, before, after))
        if not self.training:
            return super().forward(x)
        sizes = self.stride[0], int(self.padding[0]), self.dilation[0]
        return depthwise_conv2d(x, self.weight, *sizes)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, groups=weight.shape[0])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _backward(grad, x, weight, ctx.stride, (ctx.padding,) * 2, of="x")
        if ctx.needs_input_grad[1]:
            grad_weight = _weight_gradient(grad, x, weight, ctx.stride, ctx.padding)
        return grad_x, grad_weight, None, None


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Gradient of the weight, [C, 1, kernel, kernel], from the gradient `grad` of the output."""
    kernel, px, out_px = weight.shape[3], x.shape[3], grad.shape[3]  # square maps
    span = stride * (out_px - 1) + 1  # span of the pixels that one kernel tap reads
    low, high = max(0, padding + 1 - span), min(kernel, padding + px)  # taps that read pixels
    rows = slice(low, high)
    top, bottom = padding - low, high - 1 - padding + span - px
    pads_rows_itself = top == padding and padding % stride == 0 and px >= kernel
    result = torch.zeros_like(weight, memory_format=torch.contiguous_format)
    n_images = max(1, _CHUNK_BYTES // (x[0].numel() * x.element_size()))
    chunks = zip(torch.split(x, n_images), torch.split(grad, n_images), strict=True)
    for some_x, some_grad in chunks:
        for taps in _column_groups(low, high):
            left, right = padding - taps.start, taps.stop - 1 - padding + span - px
            n = taps.stop - taps.start
            pads_columns_itself = left >= 0 and (px + 2 * left - n) // stride + 1 == out_px
            edges = (
                *((0, 0) if pads_columns_itself else (left, right)),
                *((0, 0) if pads_rows_itself else (top, bottom)),
            )
            padded = F.pad(some_x, edges) if any(edges) else some_x
            result[..., rows, taps] += _backward(
                some_grad,
                padded.contiguous(memory_format=torch.channels_last),
                weight[..., rows, taps],
                stride,
                (padding if pads_rows_itself else 0, left if pads_columns_itself else 0),
                of="weight",
            )
    return result


def _column_groups(low: int, high: int) -> list[slice]:
    """Splits taps low..high into groups of up to three; an odd number has a middle group."""
    n_groups = -(-(high - low) // _FAST_COLUMNS)
    ends = [low + round(i * (high - low) / n_groups) for i in range(n_groups + 1)]
    return [slice(*pair) for pair in pairwise(ends)]


def _backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: int,
    padding: tuple[int, int],
    *,
    of: Literal["x", "weight"],
) -> Tensor:
    """Gradient of a depthwise convolution from torch, for its input or its weight."""
    index = ("x", "weight").index(of)
    gradients = torch.ops.aten.convolution_backward(
        grad,
        x,
        weight,
        None,
        [stride, stride],
        padding,
        [1, 1],
        False,
        [0, 0],
        weight.shape[0],
        [index == 0, index == 1, False],
    )
    result: Tensor = gradients[index]
    return result
