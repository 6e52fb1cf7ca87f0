"""The skeleton of a chain-like mobile space (stem, stages of blocks, head) and its choices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Act", "Choice", "MobileMacro", "Role", "Stage", "divisible"]

Act = Literal["none", "relu", "relu6", "hard_swish", "swish"]
Role = Literal["resolution", "width", "depth", "kernel", "expand"]


def divisible(value: float, divisor: int = 8) -> int:
    """Nearest multiple of `divisor`, at least one, never more than 10 % below `value`.

    The channel rounding of MobileNetV2 (1801.04381, reference code), used by every mobile space.
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * value else rounded + divisor


@dataclass(frozen=True)
class Choice:
    """One decision: `values` in ascending order of cost; a code is an index into them.

    A choice with a `parent` (an index into `SearchSpace.choices`) is active only where the parent's
    code is one of `parent_codes`.
    """

    name: str
    role: Role
    values: tuple[int, ...]
    parent: int | None = None
    parent_codes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Stage:
    """A run of inverted-residual blocks of one width; the first one may stride.

    Every block chooses its own kernel and expansion; width and depth are chosen per stage.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    kernels: tuple[int, ...]
    expands: tuple[int, ...]
    stride: Literal[1, 2]
    act: Act
    se_ratio: float = 0.0


@dataclass(frozen=True)
class MobileMacro:
    """Everything `lower()` needs to know of a mobile space besides the codes."""

    in_channels: int
    num_classes: int
    resolutions: tuple[int, ...]
    stem_widths: tuple[int, ...]
    stem_kernel: int
    stem_stride: Literal[1, 2]
    stem_act: Act
    stages: tuple[Stage, ...]
    head_width: int
    head_act: Act

    def choices(self) -> tuple[Choice, ...]:
        """All decisions, in code order: resolution, stem width, then stage by stage."""
        found = [
            Choice("resolution", "resolution", self.resolutions),
            Choice("stem.width", "width", self.stem_widths),
        ]
        for s, stage in enumerate(self.stages):
            found.append(Choice(f"stage{s}.width", "width", stage.widths))
            depth = len(found)
            found.append(Choice(f"stage{s}.depth", "depth", stage.depths))
            for b in range(max(stage.depths)):
                active = tuple(code for code, value in enumerate(stage.depths) if value > b)
                for role, values in (("kernel", stage.kernels), ("expand", stage.expands)):
                    name = f"stage{s}.block{b}.{role}"
                    found.append(Choice(name, role, values, depth, active))  # type: ignore[arg-type]
        return tuple(found)
