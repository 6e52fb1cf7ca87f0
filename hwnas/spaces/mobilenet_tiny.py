"""Small MobileNet space for 16..64 px: elastic resolution, width, depth, kernel, expansion."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.spaces.chains import MobileMacro, Stage, divisible
from hwnas.spaces.space import SearchSpace

__all__ = ["Config", "build"]

QUICK = {"resolutions": (16, 24)}

Pixels = Annotated[int, Field(ge=8, le=512)]


class Config(StrictModel):
    """Parameters of the space; `resolutions` in px, `width_mult` scales every channel count."""

    name: Literal["mobilenet_tiny"] = "mobilenet_tiny"
    resolutions: Annotated[tuple[Pixels, ...], Field(min_length=1, max_length=32)] = (24, 28, 32)
    """Input resolutions to choose from, in px."""
    width_mult: Annotated[float, Field(gt=0, le=8)] = 1.0
    """Factor by which every channel count is multiplied."""


def build(config: Config, *, num_classes: int, in_channels: int = 3) -> SearchSpace:
    """Three stages with stride 2 after a stem with stride 1: 2.8e9 archs at three resolutions."""

    def widths(*base: int) -> tuple[int, ...]:
        return tuple(sorted({divisible(width * config.width_mult) for width in base}))

    def stage(*base: int) -> Stage:
        return Stage(
            widths=widths(*base),
            depths=(1, 2, 3),
            kernels=(3, 5),
            expands=(2, 4, 6),
            stride=2,
            act="relu",
        )

    return SearchSpace(
        name="mobilenet_tiny",
        macro=MobileMacro(
            in_channels=in_channels,
            num_classes=num_classes,
            resolutions=tuple(sorted(set(config.resolutions))),
            stem_widths=widths(8, 16),
            stem_kernel=3,
            stem_stride=1,
            stem_act="relu",
            stages=(stage(16, 24, 32), stage(32, 40, 48), stage(48, 64, 80)),
            head_width=divisible(160 * config.width_mult),
            head_act="relu",
        ),
    )
