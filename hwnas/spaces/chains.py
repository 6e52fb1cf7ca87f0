"""Chains of blocks: the skeleton of every mobile space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import islice
from typing import ClassVar, Literal

from hwnas.spaces.choice import Choice, Role, Value
from hwnas.spaces.ops import Act, BlockKind, Gate, OpSpec, conv, linear, mean
from hwnas.spaces.padding import map_size, padding_of
from hwnas.spaces.skeleton import Ability, Skeleton

__all__ = ["BlockOp", "MobileMacro", "Stage", "divisible"]


def divisible(value: float, divisor: int = 8) -> int:
    """Nearest multiple of `divisor`, at least `divisor` and never more than 10 % below `value`.

    This is the channel rounding of MobileNetV2 (1801.04381, and its code). Every mobile space
    uses it.
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * value else rounded + divisor


@dataclass(frozen=True)
class BlockOp:
    """One alternative of a block that chooses between whole operators.

    `skip` passes its input on. In a block that changes the shape, `skip` is a 1x1 convolution with
    BN. `conv` is a convolution with BN and activation, without a residual connection. `groups` > 1
    splits the two 1x1 convolutions and shuffles the channels after the first one (FBNet 1812.03443,
    section 3.1). `se`: channels of SE as a share of the block's input channels; 0: no SE. The other
    fields are defined in `OpSpec`.
    """

    name: str
    kind: Literal[BlockKind, "skip"]
    kernel: int = 1
    expand: float = 1
    groups: int = 1
    start_kernel: int = 0
    expand_groups: int = 1
    se: float = 0.0


@dataclass(frozen=True)
class Stage:
    """A sequence of blocks with the same width. Only the first block may have a stride.

    Width and depth are chosen per stage. A block chooses its kernel and its expansion, or one of
    `ops`. Without `ops` it is an inverted residual, or depthwise separable if the expansion is 1.
    With `start_kernels` it is a universal inverted bottleneck, which chooses two kernels (0: no
    depthwise convolution).

    per_stage: kernels and expansion are chosen once for all blocks.
    out_act: activation after the residual add.
    skip_act: activation of the convolution that replaces a `skip` where the shape changes.
    project_shortcut: blocks that change the shape keep a residual connection, with average pooling
        and a 1x1 convolution without BN.
    first_ops, first_kernels, first_widths: values for the first block, if they differ;
        `first_widths` has one value per value of `widths`.
    ses: values of `BlockOp.se`, if blocks choose SE as well.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    stride: Literal[1, 2]
    act: Act
    kernels: tuple[int, ...] = ()
    expands: tuple[float, ...] = ()
    ops: tuple[BlockOp, ...] = ()
    first_ops: tuple[BlockOp, ...] = ()
    per_stage: bool = False
    se_ratio: float = 0.0  # channels of the SE bottleneck / depthwise channels
    out_act: Act = "none"
    skip_act: Act = "none"
    project_shortcut: bool = False
    start_kernels: tuple[int, ...] = ()
    first_kernels: tuple[int, ...] = ()
    first_widths: tuple[int, ...] = ()
    ses: tuple[float, ...] = ()
    se_act: Act = "relu"
    se_gate: Gate = "hard_sigmoid"

    def block_choices(self, block: int) -> tuple[tuple[str, Role, tuple[Value, ...]], ...]:
        """Name, role and values of each choice of block number `block`, in code order."""
        if ops := self.block_ops(block):
            return (("op", "op", tuple(op.name for op in ops)),)
        start: tuple[tuple[str, Role, tuple[Value, ...]], ...] = ()
        if self.start_kernels:
            start = (("start", "kernel", self.start_kernels),)
        se: tuple[tuple[str, Role, tuple[Value, ...]], ...] = ()
        if self.ses:
            se = (("se", "se", self.ses),)
        kernels = self.block_kernels(block)
        return (*start, ("kernel", "kernel", kernels), ("expand", "expand", self.expands), *se)

    def chosen(self, block: int, code: Iterator[int]) -> BlockOp:
        """The operator of block number `block`; consumes its codes from `code`."""
        if ops := self.block_ops(block):
            return ops[next(code)]
        start = self.start_kernels[next(code)] if self.start_kernels else None
        kernel, expand = self.block_kernels(block)[next(code)], self.expands[next(code)]
        return _block_op(start, kernel, expand, self.ses[next(code)] if self.ses else 0.0)

    def block_kernels(self, block: int) -> tuple[int, ...]:
        """Allowed kernels of block number `block`."""
        return self.first_kernels if self.first_kernels and block == 0 else self.kernels

    def block_ops(self, block: int) -> tuple[BlockOp, ...]:
        """The alternatives of block number `block`; empty if it chooses kernel and expansion."""
        return self.first_ops if self.first_ops and block == 0 else self.ops

    @cached_property
    def n_codes(self) -> tuple[int, int]:
        """Number of codes of the first block, and of each later block."""
        return len(self.block_choices(0)), len(self.block_choices(1))

    def block(
        self, is_first: bool, codes: tuple[int, ...], width: int, number: int, hw: int
    ) -> OpSpec | None:
        """The block with these codes; reads `width` channels and writes `widths[number]`.

        Results are cached, because the tables of a space request the same blocks many times.
        """
        key = (is_first, codes, width, number, hw)
        if key not in self._blocks:
            widths = self.first_widths if is_first and self.first_widths else self.widths
            choice = self.chosen(int(not is_first), iter(codes))
            stride = self.stride if is_first else 1
            self._blocks[key] = self._lower(choice, width, widths[number], hw, stride)
        return self._blocks[key]

    @cached_property
    def _blocks(self) -> dict[tuple[bool, tuple[int, ...], int, int, int], OpSpec | None]:
        return {}

    def _lower(
        self, choice: BlockOp, width: int, out_width: int, hw: int, stride: int
    ) -> OpSpec | None:
        same_shape = stride == 1 and width == out_width
        if choice.kind == "skip":
            return None if same_shape else conv(width, out_width, hw, 1, stride, self.skip_act)
        if choice.kind == "conv":
            return conv(width, out_width, hw, choice.kernel, stride, self.act)
        mid = width if choice.expand == 1 else divisible(width * choice.expand)
        window = choice.kernel or choice.start_kernel or 1
        padding, pad_more = padding_of("symmetric", hw, window, stride)
        return OpSpec(
            kind=choice.kind,
            in_channels=width,
            mid_channels=mid,
            out_channels=out_width,
            in_hw=hw,
            out_hw=map_size(hw, stride),
            kernel=choice.kernel,
            stride=stride,
            padding=padding,
            groups=choice.groups,
            se_channels=self._se_channels(choice, width, mid),
            act=self.act,
            skip=same_shape or self.project_shortcut,
            out_act=self.out_act,
            pad_more=pad_more,
            start_kernel=choice.start_kernel,
            expand_groups=choice.expand_groups,
            se_act=self.se_act,
            se_gate=self.se_gate,
        )

    def _se_channels(self, choice: BlockOp, width: int, mid: int) -> int:
        if choice.se:
            return max(1, int(width * choice.se))
        return divisible(mid * self.se_ratio) if self.se_ratio else 0


@dataclass(frozen=True)
class MobileMacro(Skeleton):
    """A chain of blocks: stem, stages, head, classifier.

    The head is a 1x1 convolution, pooling, an optional second 1x1 convolution (`feature_widths`)
    and the classifier. The first convolution has `head_width` channels, or `head_expand` times the
    last width, or one of `head_widths` if the width is searched. `feature_bn`: the second
    convolution has BN.
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
    bn_eps: float = 1e-5
    head_widths: tuple[int, ...] = ()
    feature_bn: bool = False

    lacks: ClassVar[Mapping[Ability, str]] = {}

    def choices(self) -> tuple[Choice, ...]:
        """All choices in code order: resolution, stem width, choices of each stage, head, feature.

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
                for name, role, values in stage.block_choices(0):
                    found.append(Choice(f"stage{s}.{name}", role, values))
                continue
            for b in range(max(stage.depths)):
                active = tuple(code for code, value in enumerate(stage.depths) if value > b)
                for name, role, values in stage.block_choices(b):
                    found.append(Choice(f"stage{s}.block{b}.{name}", role, values, depth, active))
        if self.head_widths:
            found.append(Choice("head.width", "width", self.head_widths))
        if self.feature_widths:
            found.append(Choice("feature.width", "width", self.feature_widths))
        return tuple(found)

    def slot_names(self) -> tuple[str, ...]:
        """Names such as `stem`, `stage0.block1`, `head`, `pool`, `classifier`."""
        blocks = [
            f"stage{s}.block{b}"
            for s, stage in enumerate(self.stages)
            for b in range(max(stage.depths))
        ]
        feature = ("feature",) if self.feature_widths else ()
        return ("stem", *blocks, "head", "pool", *feature, "classifier")

    def lower_slots(self, codes: tuple[int, ...]) -> tuple[OpSpec | None, ...]:
        """See `Skeleton.lower_slots`."""
        return tuple(self._lower(iter(codes)))

    def _lower(self, code: Iterator[int]) -> Iterator[OpSpec | None]:
        hw = self.resolutions[next(code)]
        width = self.stem_widths[next(code)]
        stem = conv(self.in_channels, width, hw, self.stem_kernel, self.stem_stride, self.stem_act)
        yield stem
        hw = stem.out_hw
        for stage in self.stages:
            number = next(code)
            depth = stage.depths[next(code)]
            n_codes = stage.n_codes
            shared = tuple(islice(code, n_codes[0])) if stage.per_stage else None
            for block in range(max(stage.depths)):
                is_first = block == 0
                codes = shared or tuple(islice(code, n_codes[not is_first]))
                if block >= depth:
                    yield None
                    continue
                op = stage.block(is_first, codes, width, number, hw)
                yield op
                widths = stage.first_widths if is_first and stage.first_widths else stage.widths
                width, hw = widths[number], op.out_hw if op is not None else hw
        head_width = self.head_expand * width or self.head_width
        if self.head_widths:
            head_width = self.head_widths[next(code)]
        yield conv(width, head_width, hw, 1, 1, self.head_act)
        yield mean(head_width, hw)
        if self.feature_widths:
            feature_width = self.feature_widths[next(code)]
            yield OpSpec(
                kind="conv",
                in_channels=head_width,
                out_channels=feature_width,
                in_hw=1,
                out_hw=1,
                act=self.head_act,
                norm="bn" if self.feature_bn else "bias" if self.feature_bias else "none",
            )
            head_width = feature_width
        yield linear(head_width, self.num_classes)


@cache
def _block_op(start: int | None, kernel: int, expand: float, se: float) -> BlockOp:
    """start: first kernel of a universal inverted bottleneck; None for an inverted residual."""
    if start is not None:
        return BlockOp("", "uib", kernel, expand, start_kernel=start, se=se)
    return BlockOp("", "dsconv" if expand == 1 else "mbconv", kernel, expand, se=se)
