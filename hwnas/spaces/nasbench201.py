"""NAS-Bench-201: a cell of six edges, five operators each, with tabulated latency and accuracy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.spaces.cells import CellMacro
from hwnas.spaces.space import SearchSpace

__all__ = ["Config", "build"]

Pixels = Annotated[int, Field(ge=16, le=64)]


class Config(StrictModel):
    """Parameters of the space; `resolutions` in px."""

    name: Literal["nasbench201"] = "nasbench201"
    resolutions: Annotated[tuple[Pixels, ...], Field(min_length=1)] = (32,)
    """Input resolutions in px."""


def build(config: Config, *, num_classes: int, in_channels: int = 3) -> SearchSpace:
    """The space of NAS-Bench-201 (2001.00326, section 2): 5^6 cells. It has no supernet."""
    return SearchSpace(
        name="nasbench201",
        macro=CellMacro(
            in_channels=in_channels,
            num_classes=num_classes,
            resolutions=tuple(sorted(set(config.resolutions))),
            widths=(16, 32, 64),
            cells_per_stage=5,
            n_nodes=4,
            ops=("none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3"),
        ),
    )
