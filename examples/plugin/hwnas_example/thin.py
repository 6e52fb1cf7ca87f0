"""Two narrow stages for 8..64 px: a space small enough to train in seconds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.spaces.chains import MobileMacro, Stage
from hwnas.spaces.space import SearchSpace

__all__ = ["Config", "build"]

QUICK = {"resolutions": (8, 12)}

Pixels = Annotated[int, Field(ge=8, le=64)]


class Config(StrictModel):
    """Parameters of the space; `resolutions` in px."""

    name: Literal["thin"] = "thin"
    resolutions: Annotated[tuple[Pixels, ...], Field(min_length=1)] = (16, 24, 32)


def build(config: Config, *, num_classes: int, in_channels: int = 3) -> SearchSpace:
    """A space with widths 8 to 24 and up to two blocks per stage."""

    def stage(*widths: int) -> Stage:
        return Stage(
            widths=widths,
            depths=(1, 2),
            kernels=(3, 5),
            expands=(1, 2),
            stride=2,
            act="relu",
        )

    return SearchSpace(
        name="thin",
        macro=MobileMacro(
            in_channels=in_channels,
            num_classes=num_classes,
            resolutions=tuple(sorted(set(config.resolutions))),
            stem_widths=(8,),
            stem_kernel=3,
            stem_stride=1,
            stem_act="relu",
            stages=(stage(8, 16), stage(16, 24)),
            head_width=32,
            head_act="relu",
        ),
    )
