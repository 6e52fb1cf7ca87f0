"""NATS-Bench topology (NAS-Bench-201): a cell of six edges that choose one of five operators."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hwnas.core.config import LATER, StrictModel
from hwnas.spaces.cells import CellMacro
from hwnas.spaces.space import SearchSpace

__all__ = ["Cells", "Config", "build"]

QUICK = {"resolutions": (8,), "width": 4, "cells_per_stage": 1}

OPS = ("none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3")

Pixels = Annotated[int, Field(ge=8, le=64)]


class Cells(StrictModel):
    """Size of the networks; the defaults are those of the benchmark on CIFAR."""

    resolutions: Annotated[tuple[Pixels, ...], Field(min_length=1)] = (32,)
    """Input resolutions to choose from, in px; the benchmark has 32 (CIFAR) and 16
    (ImageNet16-120).
    """
    width: Annotated[int, Field(ge=1, le=256), LATER] = 16
    """Channels of the first stage; the second stage has twice and the third four times as many."""
    cells_per_stage: Annotated[int, Field(ge=1, le=20), LATER] = 5
    """Cells in each of the three stages."""


class Config(Cells):
    """Parameters of the space."""

    name: Literal["nats_topology"] = "nats_topology"


def build(config: Cells, *, num_classes: int, in_channels: int = 3) -> SearchSpace:
    """The topology space of NATS-Bench (2009.00437), formerly NAS-Bench-201 (2001.00326).

    Its id begins with `nasbench201`, the first name of the space, so that archs stay valid.
    """
    return SearchSpace(
        name="nasbench201",
        macro=CellMacro(
            in_channels=in_channels,
            num_classes=num_classes,
            resolutions=tuple(sorted(set(config.resolutions))),
            widths=(config.width, 2 * config.width, 4 * config.width),
            cells_per_stage=config.cells_per_stage,
            n_nodes=4,
            ops=OPS,
        ),
    )
