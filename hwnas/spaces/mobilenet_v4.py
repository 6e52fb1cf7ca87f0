"""MobileNetV4: universal inverted bottlenecks with elastic kernels before and after expansion."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.spaces.chains import BlockOp, MobileMacro, Stage, divisible
from hwnas.spaces.space import SearchSpace

__all__ = ["Config", "build"]

QUICK = {"resolutions": (32, 64), "width_mult": 0.25}

_RATIOS = (0.5, 0.75, 1.0)  # relative to the published widths

Pixels = Annotated[int, Field(ge=32, le=512)]


class Config(StrictModel):
    """Parameters of the space; `resolutions` in px, `width_mult` scales every channel count."""

    name: Literal["mobilenet_v4"] = "mobilenet_v4"
    variant: Literal["small", "medium"] = "small"
    """Published network whose blocks the space contains: `mobilenetv4_conv_small` (also `_050`) or
    `mobilenetv4_conv_medium`.
    """
    resolutions: Annotated[tuple[Pixels, ...], Field(min_length=1)] = (128, 160, 192, 224, 256)
    """Input resolutions to choose from, in px."""
    width_mult: Annotated[float, Field(ge=0.1, le=4)] = 1.0
    """Factor by which every channel count is multiplied."""


def build(config: Config, *, num_classes: int, in_channels: int = 3) -> SearchSpace:
    """The space around the networks `Conv-S` and `Conv-M` (2404.10518; timm has weights).

    Every block of the searched stages chooses two depthwise kernels, before and after the expansion
    (none, 3x3, 5x5), and its expansion (2, 3, 4, 6). This covers ExtraDW, inverted bottleneck,
    ConvNext-like and FFN blocks. The first block of a stage always has the second kernel, because
    that convolution has the stride. Stages choose their depth. Stages and head choose 50 %, 75 % or
    100 % of the published width.
    """
    scale = config.width_mult
    stages = {
        "small": (
            _convolutions(32, 32, scale),
            _convolutions(96, 64, scale),
            _searched(96, 6, scale),
            _searched(128, 6, scale),
        ),
        "medium": (
            _fused(48, scale),
            _searched(80, 2, scale),
            _searched(160, 8, scale),
            _searched(256, 11, scale),
        ),
    }
    return SearchSpace(
        name="mobilenet_v4",
        macro=MobileMacro(
            in_channels=in_channels,
            num_classes=num_classes,
            resolutions=tuple(sorted(set(config.resolutions))),
            stem_widths=(divisible(32 * scale),),
            stem_kernel=3,
            stem_stride=2,
            stem_act="relu",
            stages=stages[config.variant],
            head_width=0,
            head_widths=_widths(960, scale),
            head_act="relu",
            feature_widths=(divisible(1280 * scale),),
            feature_bn=True,
        ),
    )


def _widths(published: int, scale: float) -> tuple[int, ...]:
    return tuple(sorted({divisible(published * ratio * scale) for ratio in _RATIOS}))


def _searched(width: int, depth: int, scale: float) -> Stage:
    """A stage of universal inverted bottlenecks, with 2 to `depth` blocks."""
    return Stage(
        widths=_widths(width, scale),
        depths=tuple(range(2, depth + 1)),
        stride=2,
        act="relu",
        kernels=(0, 3, 5),
        expands=(2, 3, 4, 6),
        start_kernels=(0, 3, 5),
        first_kernels=(3, 5),
    )


def _convolutions(first: int, width: int, scale: float) -> Stage:
    """A 3x3 convolution with stride 2 to `first` channels, and a 1x1 convolution to `width`."""
    widths = {  # if two first widths are equal, the larger one is kept
        divisible(width * ratio * scale): divisible(first * ratio * scale) for ratio in _RATIOS
    }
    return Stage(
        widths=tuple(widths),
        depths=(2,),
        stride=2,
        act="relu",
        ops=(BlockOp("conv1x1", "conv", 1),),
        first_ops=(BlockOp("conv3x3", "conv", 3),),
        first_widths=tuple(widths.values()),
    )


def _fused(width: int, scale: float) -> Stage:
    """An inverted bottleneck whose expansion is a 3x3 convolution with stride 2."""
    op = BlockOp("fused", "fused", 3, 4)
    return Stage(widths=_widths(width, scale), depths=(1,), stride=2, act="relu", ops=(op,))
