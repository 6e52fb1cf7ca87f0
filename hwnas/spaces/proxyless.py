"""ProxylessNAS: a MobileNetV2 whose blocks choose kernel and expansion, or are left out."""

from __future__ import annotations

from itertools import product
from typing import Annotated, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.spaces.chains import BlockOp, MobileMacro, Stage, divisible
from hwnas.spaces.space import SearchSpace

__all__ = ["Config", "build"]

QUICK = {"resolutions": (32, 64)}

Pixels = Annotated[int, Field(ge=32, le=512)]
Width = Annotated[int, Field(ge=1, le=8192)]

OPS = tuple(
    BlockOp(f"k{kernel}_e{expand}", "mbconv", kernel, expand)
    for expand, kernel in product((3, 6), (3, 5, 7))
)


class Config(StrictModel):
    """Parameters of the space; `resolutions` in px.

    widths: channels of stem, first block, six stages and head. They replace those of
        ProxylessNAS times `width_mult`.
    """

    name: Literal["proxyless"] = "proxyless"
    resolutions: Annotated[tuple[Pixels, ...], Field(min_length=1)] = (224,)
    """Input resolutions to choose from, in px."""
    width_mult: Annotated[float, Field(ge=0.1, le=4)] = 1.0
    """Factor by which every channel count is multiplied."""
    widths: Annotated[tuple[Width, ...], Field(min_length=9, max_length=9)] | None = None
    """Channels of the stem, the first block, the six stages and the head; null: those of
    ProxylessNAS times `width_mult`.
    """


def build(config: Config, *, num_classes: int, in_channels: int = 3) -> SearchSpace:
    """The space of ProxylessNAS (1812.00332, section 4.2).

    2010.08219 studies it, and the Pixel 1 table covers it. The first block of a stage changes the
    shape, so it cannot be omitted.
    """
    paper = (32, 16, 24, 40, 80, 96, 192, 320, 1280)
    stem, first, *widths, head = config.widths or (
        divisible(width * config.width_mult) for width in paper
    )

    def stage(width: int, depth: int, stride: Literal[1, 2]) -> Stage:
        return Stage(
            widths=(width,),
            depths=(depth,),
            stride=stride,
            act="relu6",
            ops=(BlockOp("skip", "skip"), *OPS),
            first_ops=OPS,
        )

    plan: tuple[tuple[int, Literal[1, 2]], ...] = ((4, 2), (4, 2), (4, 2), (4, 1), (4, 2), (1, 1))
    return SearchSpace(
        name="proxyless",
        macro=MobileMacro(
            in_channels=in_channels,
            num_classes=num_classes,
            resolutions=tuple(sorted(set(config.resolutions))),
            stem_widths=(stem,),
            stem_kernel=3,
            stem_stride=2,
            stem_act="relu6",
            stages=(
                Stage((first,), (1,), kernels=(3,), expands=(1,), stride=1, act="relu6"),
                *(stage(width, *shape) for width, shape in zip(widths, plan, strict=True)),
            ),
            head_width=head,
            head_act="relu6",
        ),
    )
