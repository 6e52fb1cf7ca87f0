"""Blocks of timm as data: kinds, channels, kernels, activations, SE, padding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from timm.layers import BatchNormAct2d, Conv2dSame
from timm.models._efficientnet_blocks import (
    ConvBnAct,
    DepthwiseSeparableConv,
    EdgeResidual,
    InvertedResidual,
    SqueezeExcite,
    UniversalInvertedResidual,
)
from torch import nn

from hwnas.core.errors import UserError
from hwnas.spaces.published import Block, Conv

__all__ = ["BlockReader", "refusal"]

_ACTS = {
    nn.Identity: "none",
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.Hardswish: "hard_swish",
    nn.SiLU: "swish",
    nn.Hardsigmoid: "hard_sigmoid",
    nn.Sigmoid: "sigmoid",
}


def refusal(where: str, found: str) -> UserError:
    """The error for a network that the space `timm` does not support."""
    return UserError(
        "the space `timm` does not support this network",
        expected="inverted residuals (also fused and universal ones), depthwise separable blocks"
        " and convolutions, in stages of one width, with BN",
        found=found,
        where=where,
        fix="take another network, e.g. one of `hwnas space models`",
    )


class BlockReader:
    """Reads the blocks of one network and collects the properties that they share."""

    def __init__(self) -> None:
        self.eps: set[float] = set()
        self.strided: set[bool] = set()  # whether strided convolutions pad as in TensorFlow
        self.se: set[tuple[str, str, str]] = set()  # act and gate of SE, act of the block

    def block(self, where: str, block: Any) -> Block:
        """Reads the timm block at the path `where`.

        Raises:
            UserError: the space `timm` does not support the block.
        """
        readers: dict[type, Callable[[str, Any], Block]] = {
            ConvBnAct: self.convolution,
            DepthwiseSeparableConv: self.separable,
            EdgeResidual: self.expanding,
            InvertedResidual: self.expanding,
            UniversalInvertedResidual: self.universal,
        }
        if type(block) not in readers:
            raise refusal(where, f"a block {type(block).__name__}")
        self.plain(where, block)
        return readers[type(block)](where, block)

    def convolution(self, where: str, block: ConvBnAct) -> Block:
        """A plain convolution."""
        found = self.conv(f"{where}.conv", block.conv, block.bn1)
        skip = block.has_skip
        return Block("conv", found.out, found.act, found.kernel, found.stride, skip=skip)

    def separable(self, where: str, block: DepthwiseSeparableConv) -> Block:
        """A depthwise separable block."""
        dw = self.conv(f"{where}.conv_dw", block.conv_dw, block.bn1, depthwise=True)
        pw = self.conv(f"{where}.conv_pw", block.conv_pw, block.bn2)
        if pw.act != "none" and block.has_skip:
            raise refusal(where, f"an activation {pw.act} after the last convolution")
        more = {
            "out_act": pw.act,
            "skip": block.has_skip,
            "se": self.se_of(where, block.se, dw.act),
        }
        return Block("dsconv", pw.out, dw.act, dw.kernel, dw.stride, **more)

    def expanding(self, where: str, block: InvertedResidual | EdgeResidual) -> Block:
        """An inverted residual, or a fused block, which expands with its k x k convolution."""
        is_fused = isinstance(block, EdgeResidual)
        if is_fused:
            wide = window = self.conv(f"{where}.conv_exp", block.conv_exp, block.bn1)
        else:
            wide = self.conv(f"{where}.conv_pw", block.conv_pw, block.bn1)
            window = self.conv(f"{where}.conv_dw", block.conv_dw, block.bn2, depthwise=True)
        norm = block.bn2 if is_fused else block.bn3
        last = self.conv(f"{where}.conv_pwl", block.conv_pwl, norm)
        self.same_act(where, wide, window)
        kind = "fused" if is_fused else "mbconv"
        return self.expanded(kind, where, block, wide.out, window, last)

    def universal(self, where: str, block: UniversalInvertedResidual) -> Block:
        """A universal inverted bottleneck of MobileNetV4."""
        parts: dict[str, Conv] = {}
        for name in ("dw_start", "pw_exp", "dw_mid", "pw_proj", "dw_end"):
            part = getattr(block, name)
            if not isinstance(part, nn.Identity):
                path, is_dw = f"{where}.{name}", name.startswith("dw")
                self.plain(path, part)
                parts[name] = self.conv(path, part.conv, part.bn, depthwise=is_dw)
        if "dw_end" in parts:
            raise refusal(f"{where}.dw_end", "a depthwise convolution after the projection")
        start, wide, middle = parts.get("dw_start"), parts["pw_exp"], parts.get("dw_mid")
        if start and (start.act != "none" or (middle and start.stride > 1)):
            raise refusal(f"{where}.dw_start", str(start))
        self.same_act(where, wide, middle or wide)
        window = middle or replace(start or Conv(1, wide.act), act=wide.act)
        if not middle:
            window = replace(window, kernel=0)  # type: ignore[arg-type]
        more = {"start": start.kernel} if start else {}
        return self.expanded("uib", where, block, wide.out, window, parts["pw_proj"], **more)

    def expanded(
        self, kind: str, where: str, block: Any, mid: int, window: Conv, last: Conv, **more: Any
    ) -> Block:
        """A block of kind `kind` that expands to `mid` channels, and projects with `last`."""
        if last.act != "none":
            raise refusal(where, f"an activation {last.act} after the last convolution")
        if last.kernel > 1 or last.stride > 1:
            raise refusal(where, f"a projection of kernel {last.kernel}, stride {last.stride}")
        more |= {"mid": mid, "se": self.se_of(where, block.se, window.act), "skip": block.has_skip}
        return Block(kind, last.out, window.act, window.kernel, window.stride, **more)  # type: ignore[arg-type]

    def same_act(self, where: str, wide: Conv, window: Conv) -> None:
        """Refuses a block whose expansion has another activation than the block itself."""
        if wide.act != window.act:
            raise refusal(where, f"two different activations, {wide.act} and {window.act}")

    def plain(self, where: str, block: Any) -> None:
        """Refuses unsupported parts of a block: anti-aliasing, space to depth, layer scale."""
        for name in ("aa", "conv_s2d", "bn_s2d", "layer_scale"):
            part = getattr(block, name, None)
            if not (part is None or isinstance(part, nn.Identity)):
                raise refusal(f"{where}.{name}", type(part).__name__)

    def se_of(self, where: str, se: Any, of_block: str) -> int:
        """Channels of the SE bottleneck; 0 without SE. `of_block`: the block's activation."""
        where = f"{where}.se"
        if isinstance(se, nn.Identity):
            return 0
        if type(se) is not SqueezeExcite:
            raise refusal(where, type(se).__name__)
        act, gate = self.act(where, se.act1), self.act(where, se.gate)
        if gate not in ("sigmoid", "hard_sigmoid"):
            raise refusal(where, f"a gate {gate}")
        self.se.add((act, gate, of_block))
        return int(se.conv_reduce.out_channels)

    def conv(self, where: str, conv: Any, norm: Any, *, depthwise: bool = False) -> Conv:
        """A convolution and the BN after it."""
        if type(conv) not in (nn.Conv2d, Conv2dSame) or conv.bias is not None:
            raise refusal(where, str(conv))
        (kernel, *_), (stride, *_) = conv.kernel_size, conv.stride
        square = conv.kernel_size == (kernel, kernel) and conv.stride == (stride, stride)
        groups = conv.in_channels if depthwise else 1
        sizes = kernel in (1, 3, 5, 7, 9, 11) and stride in (1, 2) and conv.dilation == (1, 1)
        if not square or not sizes or conv.groups != groups:
            raise refusal(where, str(conv))
        if type(conv) is nn.Conv2d and conv.padding != (kernel // 2, kernel // 2):
            raise refusal(where, f"padding {conv.padding}")
        if stride > 1 and kernel > 1:
            self.strided.add(type(conv) is Conv2dSame)
        if not isinstance(norm, BatchNormAct2d):
            raise refusal(where, f"{type(norm).__name__} instead of BN after the convolution")
        self.eps.add(norm.eps)
        act = self.act(where, norm.act)
        return Conv(conv.out_channels, act, kernel, stride)  # type: ignore[arg-type]

    def act(self, where: str, module: nn.Module) -> str:
        """The name of an activation."""
        if type(module) not in _ACTS:
            raise refusal(where, f"the activation {type(module).__name__}")
        return _ACTS[type(module)]
