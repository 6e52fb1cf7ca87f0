"""ProxylessNAS of Once-for-all: depth 2-4, kernel 3/5/7, expansion 3/4/6, without SE."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.spaces.chains import MobileMacro, Stage, divisible
from hwnas.spaces.space import SearchSpace

__all__ = ["Config", "build"]

QUICK = {"resolutions": (32, 64)}

Pixels = Annotated[int, Field(ge=32, le=512)]


class Config(StrictModel):
    """Parameters of the space; `resolutions` in px, `width_mult` scales every channel count."""

    name: Literal["ofa_proxyless"] = "ofa_proxyless"
    resolutions: Annotated[tuple[Pixels, ...], Field(min_length=1)] = tuple(range(128, 225, 4))
    """Input resolutions to choose from, in px."""
    width_mult: Annotated[float, Field(ge=0.1, le=4)] = 1.3
    """Factor by which every channel count is multiplied."""


def build(config: Config, *, num_classes: int, in_channels: int = 3) -> SearchSpace:
    """The space of `OFAProxylessNASNets` (1908.09791; weights exist at 1.3).

    Its blocks share slices of weights. Blocks of the space `proxyless` choose between operators
    with separate weights, or are omitted. BN uses eps 1e-3, as in the code of OFA.
    """

    def width(channels: int) -> int:
        return divisible(channels * config.width_mult)

    def stage(channels: int, depths: tuple[int, ...], stride: Literal[1, 2]) -> Stage:
        return Stage(
            widths=(width(channels),),
            depths=depths,
            kernels=(3, 5, 7),
            expands=(3, 4, 6),
            stride=stride,
            act="relu6",
        )

    return SearchSpace(
        name="ofa_proxyless",
        macro=MobileMacro(
            in_channels=in_channels,
            num_classes=num_classes,
            resolutions=tuple(sorted(set(config.resolutions))),
            stem_widths=(width(32),),
            stem_kernel=3,
            stem_stride=2,
            stem_act="relu6",
            stages=(
                Stage((width(16),), (1,), kernels=(3,), expands=(1,), stride=1, act="relu6"),
                stage(24, (2, 3, 4), 2),
                stage(40, (2, 3, 4), 2),
                stage(80, (2, 3, 4), 2),
                stage(96, (2, 3, 4), 1),
                stage(192, (2, 3, 4), 2),
                stage(320, (1,), 1),
            ),
            head_width=width(1280),
            head_act="relu6",
            bn_eps=1e-3,
        ),
    )
