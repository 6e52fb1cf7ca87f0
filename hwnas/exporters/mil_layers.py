"""Convolutions, pooling and normalisation of ML programs of Core ML, in torch, for `mil`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["batch_norm", "conv", "conv_transpose", "layer_norm", "padding", "pool", "sizes"]


def conv(v: Mapping[str, Any]) -> Tensor:
    """A convolution over one, two or three axes."""
    import torch
    from torch.nn import functional

    x, weight = v["x"], v["weight"]
    n = weight.dim() - 2
    strides, dilations = sizes(v.get("strides"), n, 1), sizes(v.get("dilations"), n, 1)
    reach = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    x = functional.pad(x, padding(v, x, reach, strides))
    zeros = [0] * n
    return torch.convolution(
        x, weight, v.get("bias"), strides, zeros, dilations, False, zeros, int(v.get("groups", 1))
    )


def conv_transpose(v: Mapping[str, Any]) -> Tensor:
    """A transposed convolution: its whole output without the padding, or of `output_shape`."""
    import torch

    x, weight = v["x"], v["weight"]
    n = weight.dim() - 2
    strides, dilations = sizes(v.get("strides"), n, 1), sizes(v.get("dilations"), n, 1)
    pads = sizes(v.get("pad") if v.get("pad_type") == "custom" else None, 2 * n, 0)
    zeros, groups = [0] * n, int(v.get("groups", 1))
    shape = sizes(v.get("output_shape"), 0, 0)[2:]
    reach = zip(x.shape[2:], weight.shape[2:], strides, dilations, strict=True)
    made = [(size - 1) * step + (k - 1) * gap + 1 for size, k, step, gap in reach]
    wanted = shape or [size - pads[2 * i] - pads[2 * i + 1] for i, size in enumerate(made)]
    more = [max(wanted[i] + pads[2 * i] - size, 0) for i, size in enumerate(made)]
    found = torch.convolution(
        x, weight, v.get("bias"), strides, zeros, dilations, True, more, groups
    )
    for i, size in enumerate(wanted):
        found = found.narrow(2 + i, pads[2 * i], size)
    return found


def pool(v: Mapping[str, Any], is_max: bool) -> Tensor:
    """Max or average pooling of windows."""
    from torch.nn import functional

    x, kernel = v["x"], sizes(v["kernel_sizes"], 0, 0)
    n = len(kernel)
    strides = sizes(v.get("strides"), n, 1)
    pads = padding(v, x, kernel, strides)
    if v.get("ceil_mode"):
        for axis in range(n):
            last = 2 * (n - axis) - 1
            size = x.shape[2 + axis] + pads[last - 1] + pads[last]
            pads[last] += -(size - kernel[axis]) % strides[axis]
    name = "max_pool" if is_max else "avg_pool"
    window = getattr(functional, f"{name}{n}d")
    outside = -np.inf if is_max else 0.0
    found: Tensor = window(functional.pad(x, pads, value=outside), kernel, strides)
    if is_max or not (v.get("exclude_padding_from_average") or v.get("ceil_mode")):
        return found
    shares: Tensor = window(functional.pad(x.new_ones(x.shape), pads), kernel, strides)
    return found / shares


def sizes(given: Any, n: int, default: int) -> list[int]:
    """The `given` numbers as integers; without them, a list of n times `default`."""
    return [default] * n if given is None else [int(size) for size in given]


def padding(v: Mapping[str, Any], x: Tensor, reach: list[int], strides: list[int]) -> list[int]:
    """Pixels before and after every axis, the last axis first, as for torch's `pad`."""
    kind, n = v.get("pad_type", "valid"), len(reach)
    pairs = [[0, 0]] * n
    if kind == "custom":
        given = sizes(v["pad"], 2 * n, 0)
        pairs = [given[2 * i : 2 * i + 2] for i in range(n)]
    elif kind.startswith("same"):
        for axis, stride in enumerate(strides):
            size = x.shape[2 + axis]
            total = max((-(-size // stride) - 1) * stride + reach[axis] - size, 0)
            small = total // 2
            pairs[axis] = [total - small, small] if kind == "same_lower" else [small, total - small]
    return [size for pair in reversed(pairs) for size in pair]


def batch_norm(v: Mapping[str, Any]) -> Tensor:
    """BN with the statistics of the network."""
    from torch.nn import functional

    return functional.batch_norm(
        v["x"], v["mean"], v["variance"], v.get("gamma"), v.get("beta"), eps=v.get("epsilon", 1e-5)
    )


def layer_norm(v: Mapping[str, Any]) -> Tensor:
    """Normalises over `axes`, with a scale and a shift of the shape of these axes."""
    x = v["x"]
    axes = sorted(axis % x.dim() for axis in sizes(v.get("axes"), 0, 0) or range(x.dim()))
    mean, variance = x.mean(axes, keepdim=True), x.var(axes, correction=0, keepdim=True)
    found: Tensor = (x - mean) / (variance + v.get("epsilon", 1e-5)).sqrt()
    shape = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
    for name, is_factor in (("gamma", True), ("beta", False)):
        if (given := v.get(name)) is not None:
            spread = given.reshape(shape)
            found = found * spread if is_factor else found + spread
    return found
