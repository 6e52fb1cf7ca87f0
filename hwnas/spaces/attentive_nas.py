"""AttentiveNAS / AlphaNet / BigNAS: elastic widths, depths, kernels, expansions per stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.spaces.chains import MobileMacro, Stage
from hwnas.spaces.space import SearchSpace

__all__ = ["Config", "build"]

QUICK = {"resolutions": (32, 64)}

Pixels = Annotated[int, Field(ge=32, le=512)]


class Config(StrictModel):
    """Parameters of the space; `resolutions` in px."""

    name: Literal["attentive_nas"] = "attentive_nas"
    resolutions: Annotated[tuple[Pixels, ...], Field(min_length=1)] = (192, 224, 256, 288)
    """Input resolutions to choose from, in px."""


def build(config: Config, *, num_classes: int, in_channels: int = 3) -> SearchSpace:
    """The space of AttentiveNAS (2011.09011, table 7), which AlphaNet (2102.07954) also uses.

    Kernel and expansion are chosen per stage. Every block has a residual connection, with a 1x1
    convolution if the shape changes.
    """

    def stage(
        widths: tuple[int, ...],
        depths: range,
        expands: tuple[int, ...],
        stride: Literal[1, 2],
        *,
        se: bool,
    ) -> Stage:
        return Stage(
            widths=widths,
            depths=tuple(depths),
            kernels=(3, 5),
            expands=expands,
            stride=stride,
            act="swish",
            per_stage=True,
            se_ratio=0.25 if se else 0.0,
            project_shortcut=True,
        )

    return SearchSpace(
        name="attentive_nas",
        macro=MobileMacro(
            in_channels=in_channels,
            num_classes=num_classes,
            resolutions=tuple(sorted(set(config.resolutions))),
            stem_widths=(16, 24),
            stem_kernel=3,
            stem_stride=2,
            stem_act="swish",
            stages=(
                stage((16, 24), range(1, 3), (1,), 1, se=False),
                stage((24, 32), range(3, 6), (4, 5, 6), 2, se=False),
                stage((32, 40), range(3, 7), (4, 5, 6), 2, se=True),
                stage((64, 72), range(3, 7), (4, 5, 6), 2, se=False),
                stage((112, 120, 128), range(3, 9), (4, 5, 6), 1, se=True),
                stage((192, 200, 208, 216), range(3, 9), (6,), 2, se=True),
                stage((216, 224), range(1, 3), (6,), 1, se=True),
            ),
            head_width=0,
            head_expand=6,
            head_act="swish",
            feature_widths=(1792, 1984),
        ),
    )
