"""NAS-Bench-Macro: 8 blocks that choose one of 3 operators; the accuracy of every arch is known."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.spaces.chains import BlockOp, MobileMacro, Stage
from hwnas.spaces.space import SearchSpace

__all__ = ["Config", "build"]

Pixels = Annotated[int, Field(ge=8, le=512)]

OPS = (
    BlockOp("identity", "skip"),
    BlockOp("k3_e3", "mbconv", 3, 3),
    BlockOp("k5_e6", "mbconv", 5, 6),
)
"""Operators in the order of the digits of the benchmark, so that codes equal digits."""


class Config(StrictModel):
    """Parameters of the space; `resolutions` in px."""

    name: Literal["nasbench_macro"] = "nasbench_macro"
    resolutions: Annotated[tuple[Pixels, ...], Field(min_length=1)] = (32,)
    """Input resolutions to choose from, in px."""


def build(config: Config, *, num_classes: int, in_channels: int = 3) -> SearchSpace:
    """The space of 2103.11922, appendix A: 3^8 archs for CIFAR-10."""
    return SearchSpace(
        name="nasbench_macro",
        macro=MobileMacro(
            in_channels=in_channels,
            num_classes=num_classes,
            resolutions=tuple(sorted(set(config.resolutions))),
            stem_widths=(32,),
            stem_kernel=3,
            stem_stride=1,
            stem_act="relu",
            stages=tuple(
                Stage((width,), (depth,), stride=2, act="relu", ops=OPS)
                for width, depth in ((64, 2), (128, 3), (256, 3))
            ),
            head_width=1280,
            head_act="relu",
        ),
    )
