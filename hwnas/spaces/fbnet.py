"""FBNet: 22 blocks that choose one of nine operators, two of them with grouped 1x1 convolutions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.spaces.chains import BlockOp, MobileMacro, Stage
from hwnas.spaces.space import SearchSpace

__all__ = ["Config", "build"]

Pixels = Annotated[int, Field(ge=16, le=512)]

OPS = (
    BlockOp("skip", "skip"),
    *(
        BlockOp(f"k{k}_e{e}" + (f"_g{g}" if g > 1 else ""), "mbconv", k, e, g)
        for e, g in ((1, 2), (1, 1), (3, 1), (6, 1))
        for k in (3, 5)
    ),
)


class Config(StrictModel):
    """Parameters of the space.

    layout: strides and head, for small images (32 px) or for ImageNet.
    resolutions: in px; None uses those of the layout.
    """

    name: Literal["fbnet"] = "fbnet"
    layout: Literal["cifar", "imagenet"] = "cifar"
    """Strides and head: for small images (32 px, `cifar`) or for ImageNet."""
    resolutions: Annotated[tuple[Pixels, ...], Field(min_length=1)] | None = None
    """Input resolutions to choose from, in px; null: those of the layout."""


def build(config: Config, *, num_classes: int, in_channels: int = 3) -> SearchSpace:
    """The space of FBNet (1812.03443, table 1), as in HW-NAS-Bench (2103.10584) and HELP."""
    is_cifar = config.layout == "cifar"

    def stage(width: int, depth: int, stride: Literal[1, 2]) -> Stage:
        return Stage(
            widths=(width,),
            depths=(depth,),
            stride=stride,
            act="relu",
            ops=OPS,
            skip_act="relu",
        )

    return SearchSpace(
        name="fbnet",
        macro=MobileMacro(
            in_channels=in_channels,
            num_classes=num_classes,
            resolutions=tuple(sorted(set(config.resolutions or ((32,) if is_cifar else (224,))))),
            stem_widths=(16,),
            stem_kernel=3,
            stem_stride=1 if is_cifar else 2,
            stem_act="relu",
            stages=(
                stage(16, 1, 1),
                stage(24, 4, 1 if is_cifar else 2),
                stage(32, 4, 2),
                stage(64, 4, 2),
                stage(112, 4, 1),
                stage(184, 4, 2),
                stage(352, 1, 1),
            ),
            head_width=1504 if is_cifar else 1984,
            head_act="relu",
        ),
    )
