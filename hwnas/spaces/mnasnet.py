"""MnasNet: expansion, kernel, depth and SE of seven stages, as measured by Accel-NASBench."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.spaces.chains import MobileMacro, Stage, divisible
from hwnas.spaces.space import SearchSpace

__all__ = ["SE_SHARE", "Config", "build"]

QUICK = {"resolutions": (32, 64), "width_mult": 0.25}

Pixels = Annotated[int, Field(ge=32, le=512)]

SE_SHARE = 0.25
"""Channels of SE, as a share of the block's input channels."""

STAGES: tuple[tuple[int, Literal[1, 2], int], ...] = (
    (16, 1, 3),
    (24, 2, 3),
    (40, 2, 3),
    (80, 2, 3),
    (112, 1, 3),
    (192, 2, 4),
    (320, 1, 3),
)
"""Width, stride and largest depth of every stage."""


class Config(StrictModel):
    """Parameters of the space; `resolutions` in px."""

    name: Literal["mnasnet"] = "mnasnet"
    resolutions: Annotated[tuple[Pixels, ...], Field(min_length=1)] = (224,)
    """Input resolutions to choose from, in px."""
    width_mult: Annotated[float, Field(ge=0.1, le=4)] = 1.0
    """Factor by which every channel count is multiplied; the head has at least 1280 channels."""


def build(config: Config, *, num_classes: int, in_channels: int = 3) -> SearchSpace:
    """The space of Accel-NASBench (2404.08005): EfficientNet-B0, identical blocks per stage.

    Accel-NASBench publishes accuracies of 5,138 archs that were trained individually on ImageNet.
    """
    return SearchSpace(
        name="mnasnet",
        macro=MobileMacro(
            in_channels=in_channels,
            num_classes=num_classes,
            resolutions=tuple(sorted(set(config.resolutions))),
            stem_widths=(divisible(32 * config.width_mult),),
            stem_kernel=3,
            stem_stride=2,
            stem_act="swish",
            stages=tuple(
                Stage(
                    widths=(divisible(width * config.width_mult),),
                    depths=tuple(range(1, depth + 1)),
                    stride=stride,
                    act="swish",
                    kernels=(3, 5),
                    expands=(1, 4, 6),
                    per_stage=True,
                    ses=(0.0, SE_SHARE),
                    se_act="swish",
                    se_gate="sigmoid",
                )
                for width, stride, depth in STAGES
            ),
            head_width=divisible(1280 * max(1.0, config.width_mult)),
            head_act="swish",
        ),
    )
