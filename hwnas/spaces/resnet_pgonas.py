"""Residual networks of basic blocks, with elastic depth and a width per convolution (PGONAS)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.spaces.chains import divisible
from hwnas.spaces.choice import Choice
from hwnas.spaces.ops import Act, OpSpec, conv, linear, mean
from hwnas.spaces.padding import map_size
from hwnas.spaces.skeleton import Ability, Skeleton
from hwnas.spaces.space import SearchSpace

__all__ = ["Config", "ResidualMacro", "build"]

QUICK = {
    "resolutions": (32, 48),
    "width_mult": 0.25,
    "max_depths": (2, 3, 2, 2),
    "ratios": (0.7, 1),
}

WIDTHS = (64, 128, 256, 512)
"""Channels of the four stages at ratio 1; the stem has those of the first."""

Pixels = Annotated[int, Field(ge=32, le=512)]
Ratio = Annotated[float, Field(ge=0.1, le=1)]
MaxDepth = Annotated[int, Field(ge=2, le=64)]


class Config(StrictModel):
    """Parameters of the space."""

    name: Literal["resnet_pgonas"] = "resnet_pgonas"
    resolutions: Annotated[tuple[Pixels, ...], Field(min_length=1)] = (160, 176, 192, 208, 224)
    """Input resolutions to choose from, in px."""
    max_depths: tuple[MaxDepth, MaxDepth, MaxDepth, MaxDepth] = (5, 5, 8, 5)
    """Blocks of each stage; stages choose from 2 up to this number."""
    ratios: Annotated[tuple[Ratio, ...], Field(min_length=1, max_length=16)] = (
        *(0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
        1.0,
    )
    """Widths of the stages to choose from, relative to 64, 128, 256 and 512 channels; channel
    counts are multiples of 8.
    """
    width_mult: Annotated[float, Field(ge=0.1, le=4)] = 1.0
    """Factor by which every channel count is multiplied."""
    out_act: Act = "relu"
    """Activation after the residual add of a block. PGONAS ranks better with a smooth one, such as
    `swish`.
    """


@dataclass(frozen=True)
class ResidualMacro(Skeleton):
    """Stem, max pooling, four stages of basic blocks, global mean, classifier.

    widths: widths of each stage to choose from; the stem has those of the first stage.
    depths: numbers of blocks of each stage to choose from.
    """

    in_channels: int
    num_classes: int
    resolutions: tuple[int, ...]
    widths: tuple[tuple[int, ...], ...]
    depths: tuple[tuple[int, ...], ...]
    out_act: Act = "relu"

    lacks: ClassVar[Mapping[Ability, str]] = {}

    def choices(self) -> tuple[Choice, ...]:
        """Resolution and stem, then per stage its width and depth, and a width in each block.

        `stage0.width` sets the channels of the second convolution in every block of the stage, the
        same for all because residual connections add them. `stage0.block1.mid` sets the channels
        of the first convolution in one block.
        """
        found = [
            Choice("resolution", "resolution", self.resolutions),
            Choice("stem.width", "width", self.widths[0]),
        ]
        for s, (widths, depths) in enumerate(zip(self.widths, self.depths, strict=True)):
            found.append(Choice(f"stage{s}.width", "width", widths))
            depth = len(found)
            found.append(Choice(f"stage{s}.depth", "depth", depths))
            for b in range(depths[-1]):
                active = tuple(code for code, value in enumerate(depths) if value > b)
                found.append(Choice(f"stage{s}.block{b}.mid", "width", widths, depth, active))
        return tuple(found)

    def slot_names(self) -> tuple[str, ...]:
        """`stem`, `stem_pool`, `stage0.block0`, ..., `pool`, `classifier`."""
        blocks = [f"stage{s}.block{b}" for s, row in enumerate(self.depths) for b in range(row[-1])]
        return ("stem", "stem_pool", *blocks, "pool", "classifier")

    def lower_slots(self, codes: tuple[int, ...]) -> tuple[OpSpec | None, ...]:
        """See `Skeleton.lower_slots`."""
        return tuple(self._lower(iter(codes)))

    def _lower(self, code: Iterator[int]) -> Iterator[OpSpec | None]:
        hw, width = self.resolutions[next(code)], self.widths[0][next(code)]
        stem = conv(self.in_channels, width, hw, 7, 2, "relu")
        yield stem
        pool = _max_pool(width, stem.out_hw)
        yield pool
        hw = pool.out_hw
        for s, (widths, depths) in enumerate(zip(self.widths, self.depths, strict=True)):
            out, depth = widths[next(code)], depths[next(code)]
            for b in range(depths[-1]):
                mid = widths[next(code)]
                if b >= depth:
                    yield None
                    continue
                op = _block(width, mid, out, hw, 2 if s and not b else 1, self.out_act)
                yield op
                width, hw = out, op.out_hw
        yield mean(width, hw)
        yield linear(width, self.num_classes)


# Cached, because tables of a whole space (`index.py`) lower the same operators thousands of times.
@lru_cache(maxsize=1 << 10)
def _max_pool(width: int, hw: int) -> OpSpec:
    return OpSpec("max_pool", width, width, hw, map_size(hw, 2), kernel=3, stride=2, padding=1)


@lru_cache(maxsize=1 << 15)
def _block(width: int, mid: int, out: int, hw: int, stride: int, out_act: Act) -> OpSpec:
    return OpSpec(
        kind="basic",
        in_channels=width,
        mid_channels=mid,
        out_channels=out,
        in_hw=hw,
        out_hw=map_size(hw, stride),
        kernel=3,
        stride=stride,
        padding=1,
        act="relu",
        skip=True,
        out_act=out_act,
    )


def build(config: Config, *, num_classes: int, in_channels: int = 3) -> SearchSpace:
    """The space of PGONAS (2206.13329, section 4): subnets of a ResNet of 23 basic blocks.

    Depths (2, 2, 2, 2) at ratio 1 are ResNet-18, (3, 4, 6, 3) are ResNet-34 (1512.03385). The
    second convolutions of a stage share one ratio, because residual connections add their outputs.
    """
    ratios = sorted(set(config.ratios))
    widths = [
        tuple(sorted({divisible(width * ratio * config.width_mult) for ratio in ratios}))
        for width in WIDTHS
    ]
    return SearchSpace(
        name="resnet_pgonas",
        macro=ResidualMacro(
            in_channels=in_channels,
            num_classes=num_classes,
            resolutions=tuple(sorted(set(config.resolutions))),
            widths=tuple(widths),
            depths=tuple(tuple(range(2, most + 1)) for most in config.max_depths),
            out_act=config.out_act,
        ),
    )
