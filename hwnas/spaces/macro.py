"""Skeletons as data: what a space fixes, and which decisions it leaves open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "Act",
    "BlockOp",
    "CellMacro",
    "Choice",
    "Macro",
    "MobileMacro",
    "Role",
    "Stage",
    "Value",
    "divisible",
]

Act = Literal["none", "relu", "relu6", "hard_swish", "swish"]
Role = Literal["resolution", "width", "depth", "kernel", "expand", "op"]
Value = int | float | str


def divisible(value: float, divisor: int = 8) -> int:
    """Nearest multiple of `divisor`, at least one, never more than 10 % below `value`.

    The channel rounding of MobileNetV2 (1801.04381, reference code), used by every mobile space.
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * value else rounded + divisor


@dataclass(frozen=True)
class Choice:
    """One decision: `values` in ascending order of cost; a code is an index into them.

    Numbers, or names of operators. A choice with a `parent` (an index into `SearchSpace.choices`)
    is active only where the parent's code is one of `parent_codes`.
    """

    name: str
    role: Role
    values: tuple[Value, ...]
    parent: int | None = None
    parent_codes: tuple[int, ...] = ()


@dataclass(frozen=True)
class BlockOp:
    """One alternative of a block that chooses between whole operators.

    `skip` passes its input on; where the block changes the shape, it is a 1x1 convolution with BN.
    `groups` > 1 splits the two 1x1 convolutions, with a channel shuffle behind the first (FBNet
    1812.03443, section 3.1).
    """

    name: str
    kind: Literal["mbconv", "dsconv", "skip"]
    kernel: int = 1
    expand: float = 1
    groups: int = 1


@dataclass(frozen=True)
class Stage:
    """A run of blocks of one width; the first one may stride.

    Width and depth are chosen per stage. A block chooses its kernel and its expansion (an inverted
    residual; depthwise separable where the expansion is 1), or one of `ops`. `per_stage`: kernel
    and expansion are chosen once for all blocks. `out_act` follows the residual add, `skip_act` the
    convolution of a `skip` that changes the shape. `project_shortcut`: blocks that change the shape
    keep a shortcut, through average pooling and a 1x1 convolution without BN.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    stride: Literal[1, 2]
    act: Act
    kernels: tuple[int, ...] = ()
    expands: tuple[float, ...] = ()
    ops: tuple[BlockOp, ...] = ()
    first_ops: tuple[BlockOp, ...] = ()  # of the first block, where they differ from `ops`
    per_stage: bool = False
    se_ratio: float = 0.0  # channels of the gate's bottleneck as a share of the depthwise width
    out_act: Act = "none"
    skip_act: Act = "none"
    project_shortcut: bool = False

    def block_ops(self, block: int) -> tuple[BlockOp, ...]:
        """The alternatives of block number `block`; empty where it chooses kernel and expansion."""
        return self.first_ops if self.first_ops and block == 0 else self.ops


@dataclass(frozen=True)
class MobileMacro:
    """Everything `lower()` needs to know of a mobile space besides the codes.

    The head is a 1x1 convolution (`head_width` channels, or `head_expand` times the last width),
    pooling, with `feature_widths` a further 1x1 convolution without BN, and the classifier.
    """

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
    head_expand: int = 0
    feature_widths: tuple[int, ...] = ()
    feature_bias: bool = False

    def choices(self) -> tuple[Choice, ...]:
        """All decisions, in code order: resolution, stem width, then stage by stage, feature width.

        `lower_slots` reads the codes in this order.
        """
        found = [
            Choice("resolution", "resolution", self.resolutions),
            Choice("stem.width", "width", self.stem_widths),
        ]
        for s, stage in enumerate(self.stages):
            found.append(Choice(f"stage{s}.width", "width", stage.widths))
            depth = len(found)
            found.append(Choice(f"stage{s}.depth", "depth", stage.depths))
            if stage.per_stage:
                found.append(Choice(f"stage{s}.kernel", "kernel", stage.kernels))
                found.append(Choice(f"stage{s}.expand", "expand", stage.expands))
                continue
            for b in range(max(stage.depths)):
                active = tuple(code for code, value in enumerate(stage.depths) if value > b)
                name = f"stage{s}.block{b}"
                if ops := stage.block_ops(b):
                    names = tuple(op.name for op in ops)
                    found.append(Choice(f"{name}.op", "op", names, depth, active))
                else:
                    found.append(Choice(f"{name}.kernel", "kernel", stage.kernels, depth, active))
                    found.append(Choice(f"{name}.expand", "expand", stage.expands, depth, active))
        if self.feature_widths:
            found.append(Choice("feature.width", "width", self.feature_widths))
        return tuple(found)


@dataclass(frozen=True)
class CellMacro:
    """A NAS-Bench-201 skeleton (2001.00326, section 2.1): stages of equal cells, one cell chosen.

    A cell is a complete graph of `n_nodes` ordered nodes; every edge chooses one of `ops`. Between
    stages a residual block halves the map and doubles the channels.
    """

    in_channels: int
    num_classes: int
    resolutions: tuple[int, ...]
    widths: tuple[int, ...]
    cells_per_stage: int
    n_nodes: int
    ops: tuple[str, ...]

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(source, target) of every edge, by target as in NAS-Bench-201's strings."""
        return tuple((i, j) for j in range(1, self.n_nodes) for i in range(j))

    def choices(self) -> tuple[Choice, ...]:
        """The resolution, then one operator per edge."""
        edges = (Choice(f"edge{i}{j}", "op", self.ops) for i, j in self.edges)
        return (Choice("resolution", "resolution", self.resolutions), *edges)


Macro = MobileMacro | CellMacro
