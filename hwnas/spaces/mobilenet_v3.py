"""MobileNetV3 of Once-for-all: depth 2-4, kernel 3/5/7, expansion 3/4/6, elastic resolution."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.spaces.chains import MobileMacro, Stage, divisible
from hwnas.spaces.ops import Act
from hwnas.spaces.space import SearchSpace

__all__ = ["Config", "build"]

QUICK = {"resolutions": (32, 64)}

Pixels = Annotated[int, Field(ge=32, le=512)]


class Config(StrictModel):
    """Parameters of the space; `resolutions` in px, `width_mult` scales every channel count."""

    name: Literal["mobilenet_v3"] = "mobilenet_v3"
    resolutions: Annotated[tuple[Pixels, ...], Field(min_length=1)] = tuple(range(128, 225, 4))
    """Input resolutions to choose from, in px."""
    width_mult: Annotated[float, Field(ge=0.1, le=4)] = 1.0
    """Factor by which every channel count is multiplied."""


def build(config: Config, *, num_classes: int, in_channels: int = 3) -> SearchSpace:
    """The space of 1908.09791, section 4.1 (`OFAMobileNetV3`; weights exist at 1.0 and 1.2)."""

    def stage(width: int, stride: Literal[1, 2], act: Act, *, se: bool) -> Stage:
        return Stage(
            widths=(divisible(width * config.width_mult),),
            depths=(2, 3, 4),
            kernels=(3, 5, 7),
            expands=(3, 4, 6),
            stride=stride,
            act=act,
            se_ratio=0.25 if se else 0.0,
        )

    stem = divisible(16 * config.width_mult)
    return SearchSpace(
        name="mobilenet_v3",
        macro=MobileMacro(
            in_channels=in_channels,
            num_classes=num_classes,
            resolutions=tuple(sorted(set(config.resolutions))),
            stem_widths=(stem,),
            stem_kernel=3,
            stem_stride=2,
            stem_act="hard_swish",
            stages=(
                Stage((stem,), (1,), kernels=(3,), expands=(1,), stride=1, act="relu"),
                stage(24, 2, "relu", se=False),
                stage(40, 2, "relu", se=True),
                stage(80, 2, "hard_swish", se=False),
                stage(112, 1, "hard_swish", se=True),
                stage(160, 2, "hard_swish", se=True),
            ),
            head_width=divisible(960 * config.width_mult),
            head_act="hard_swish",
            feature_widths=(divisible(1280 * config.width_mult),),
        ),
    )
