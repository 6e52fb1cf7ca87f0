"""Chains of blocks: the skeleton of every mobile space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import ClassVar, Literal

from hwnas.spaces.choice import Choice
from hwnas.spaces.ops import Act, OpSpec, conv, linear, map_size, mean
from hwnas.spaces.skeleton import Ability, Skeleton

__all__ = ["BlockOp", "MobileMacro", "Stage", "divisible"]


def divisible(value: float, divisor: int = 8) -> int:
    """Nearest multiple of `divisor`, at least one, never more than 10 % below `value`.

    The channel rounding of MobileNetV2 (1801.04381, reference code), used by every mobile space.
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * value else rounded + divisor


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

    def lower(
        self, choice: BlockOp, width: int, out_width: int, hw: int, stride: int
    ) -> OpSpec | None:
        """One block from `width` to `out_width` channels; None where it only passes its input on.

        Equal blocks are one object: tables of a whole space lower the same one thousands of times.
        """
        form = (choice.kind, choice.kernel, choice.expand, choice.groups)
        key = (form, width, out_width, hw, stride)
        if key not in self._lowered:
            self._lowered[key] = self._lower(choice, width, out_width, hw, stride)
        return self._lowered[key]

    @cached_property
    def _lowered(self) -> dict[tuple[object, ...], OpSpec | None]:
        return {}

    def _lower(
        self, choice: BlockOp, width: int, out_width: int, hw: int, stride: int
    ) -> OpSpec | None:
        same_shape = stride == 1 and width == out_width
        if choice.kind == "skip":
            return None if same_shape else conv(width, out_width, hw, 1, stride, self.skip_act)
        mid = width if choice.expand == 1 else divisible(width * choice.expand)
        return OpSpec(
            kind=choice.kind,
            in_channels=width,
            mid_channels=mid,
            out_channels=out_width,
            in_hw=hw,
            out_hw=map_size(hw, choice.kernel, stride),
            kernel=choice.kernel,
            stride=stride,
            padding=choice.kernel // 2,
            groups=choice.groups,
            se_channels=divisible(mid * self.se_ratio) if self.se_ratio else 0,
            act=self.act,
            skip=same_shape or self.project_shortcut,
            out_act=self.out_act,
        )


@dataclass(frozen=True)
class MobileMacro(Skeleton):
    """A chain of blocks: stem, stages, head, classifier.

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
    bn_eps: float = 1e-5

    lacks: ClassVar[Mapping[Ability, str]] = {}

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

    def slot_names(self) -> tuple[str, ...]:
        """E.g. `stem`, `stage0.block1`, `head`, `pool`, `classifier`."""
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
            out_width = stage.widths[next(code)]
            depth = stage.depths[next(code)]
            shared = _inverted_residual(stage, code) if stage.per_stage else None
            for block in range(max(stage.depths)):
                if shared is not None:
                    choice = shared
                elif ops := stage.block_ops(block):
                    choice = ops[next(code)]
                else:
                    choice = _inverted_residual(stage, code)
                if block >= depth:
                    yield None
                    continue
                stride = stage.stride if block == 0 else 1
                op = stage.lower(choice, width, out_width, hw, stride)
                yield op
                width, hw = out_width, op.out_hw if op is not None else hw
        head_width = self.head_expand * width or self.head_width
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
                norm="bias" if self.feature_bias else "none",
            )
            head_width = feature_width
        yield linear(head_width, self.num_classes)


def _inverted_residual(stage: Stage, code: Iterator[int]) -> BlockOp:
    """The block of the next two codes: kernel and expansion."""
    return _block_op(stage.kernels[next(code)], stage.expands[next(code)])


@cache
def _block_op(kernel: int, expand: float) -> BlockOp:
    return BlockOp("", "dsconv" if expand == 1 else "mbconv", kernel, expand)
