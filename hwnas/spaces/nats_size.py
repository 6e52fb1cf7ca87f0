"""NATS-Bench size: five widths of 8 to 64 channels around one fixed cell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.core.errors import UserError
from hwnas.spaces.cells import CellMacro
from hwnas.spaces.choice import Choice
from hwnas.spaces.skeleton import Skeleton, SlotGraph
from hwnas.spaces.space import SearchSpace

__all__ = ["Config", "SizeMacro", "build"]

QUICK = {"resolutions": (8,), "widths": (4, 6, 8)}

CELL = ("nor_conv_3x3", "nor_conv_3x3", "nor_conv_3x3", "skip_connect", *["nor_conv_3x3"] * 2)
"""Operators of the edges 01, 02, 12, 03, 13, 23 (2009.00437, section 3.2)."""
LAYERS = ("stage0", "reduce1", "stage1", "reduce2", "stage2")

Pixels = Annotated[int, Field(ge=8, le=64)]
Width = Annotated[int, Field(ge=1, le=512)]


class Config(StrictModel):
    """Parameters of the space."""

    name: Literal["nats_size"] = "nats_size"
    resolutions: Annotated[tuple[Pixels, ...], Field(min_length=1)] = (32,)
    """Input resolutions to choose from, in px; the benchmark has 32 (CIFAR) and 16
    (ImageNet16-120).
    """
    widths: Annotated[tuple[Width, ...], Field(min_length=1)] = tuple(range(8, 65, 8))
    """Channels that each of the five layers can have."""


@dataclass(frozen=True)
class SizeMacro(CellMacro):
    """The skeleton of `CellMacro` with a fixed cell and searched widths.

    Narrow layers use the first channels of the shared weights, as widths of other spaces do.

    widths: values that each width can take. The stem has the width of the first cells.
    ops: operators of the edges of the cell.
    """

    @property
    def n_stages(self) -> int:
        """See `CellMacro.n_stages`."""
        return 3

    def choices(self) -> tuple[Choice, ...]:
        """The resolution, then one width per layer: cells, residual block, cells, ..."""
        widths = (Choice(f"{layer}.width", "width", self.widths) for layer in LAYERS)
        return (Choice("resolution", "resolution", self.resolutions), *widths)

    def op_choice(self, slot: str) -> str:
        """Always empty, because no slot chooses its operator."""
        return ""

    def codes_of(self, text: str) -> tuple[int, ...] | None:
        """Codes of the arch with widths in the notation of NATS-Bench, `8:16:24:64:64`.

        The resolution is the largest one. Returns None if `text` has no colon.
        """
        if ":" not in text:
            return None
        parts = text.split(":")
        known = [str(width) for width in self.widths]
        if len(parts) != len(LAYERS) or not all(re.fullmatch(r"\d+", part) for part in parts):
            form = ":".join(["WIDTH"] * len(LAYERS))
            raise UserError("not the widths of an arch of this space", expected=form, found=text)
        for layer, part in zip(LAYERS, parts, strict=True):
            if part not in known:
                raise UserError(
                    f"{layer} has a width that is not in the space",
                    expected=f"one of {', '.join(known)}",
                    found=part,
                    where=text,
                )
        return (len(self.resolutions) - 1, *map(known.index, parts))

    def text_of(self, codes: tuple[int, ...]) -> str:
        """The widths in the notation of NATS-Bench."""
        return ":".join(str(self.widths[code]) for code in codes[1:])

    def predictor_graph(self) -> SlotGraph:
        """All slots, because cells differ in their widths."""
        return Skeleton.predictor_graph(self)

    def _chosen(self, codes: tuple[int, ...]) -> tuple[Sequence[tuple[int, int]], Sequence[str]]:
        first, *others = (self.widths[code] for code in codes[1:])
        return [(first, first), (others[0], others[1]), (others[2], others[3])], self.ops


def build(config: Config, *, num_classes: int, in_channels: int = 3) -> SearchSpace:
    """The size space of NATS-Bench (2009.00437): 8^5 archs."""
    return SearchSpace(
        name="nats_size",
        macro=SizeMacro(
            in_channels=in_channels,
            num_classes=num_classes,
            resolutions=tuple(sorted(set(config.resolutions))),
            widths=tuple(sorted(set(config.widths))),
            cells_per_stage=1,
            n_nodes=4,
            ops=CELL,
        ),
    )
