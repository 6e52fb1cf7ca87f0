"""`lower()`: from codes to operators, the only place where shapes are computed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache

from hwnas.core.store import content_hash
from hwnas.spaces.arch import Arch
from hwnas.spaces.macro import Act, BlockOp, CellMacro, Macro, MobileMacro, Stage, divisible
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.space import SearchSpace

__all__ = ["lower", "lower_slots", "network_key", "resolution", "slot_names"]


def lower(space: SearchSpace, arch: Arch) -> tuple[OpSpec, ...]:
    """The operators of one arch, in execution order.

    Raises:
        UserError: the arch is not a member of the space.
    """
    space.check(arch)
    return tuple(op for op in lower_slots(space.macro, arch.codes) if op is not None)


def network_key(space: SearchSpace, arch: Arch) -> str:
    """16 hex digits of the lowered network; equal for archs that are the same network."""
    return content_hash([op.key for op in lower(space, arch)])


def resolution(space: SearchSpace, arch: Arch) -> int:
    """Height and width in px of the images that `arch` reads."""
    return space.macro.resolutions[arch.codes[0]]


def slot_names(space: SearchSpace) -> tuple[str, ...]:
    """Names of the slots of `lower_slots`, e.g. `stem`, `stage0.block1`, `head`, `classifier`."""
    return _cell_slots(space.macro) if isinstance(space.macro, CellMacro) else _slots(space.macro)


def lower_slots(macro: Macro, codes: tuple[int, ...]) -> tuple[OpSpec | None, ...]:
    """One entry per slot of the space; None where the arch has no operator there."""
    if isinstance(macro, CellMacro):
        return tuple(_lower_cells(macro, codes))
    return tuple(_lower(macro, codes))


# --- chains of blocks -----------------------------------------------------------------------------


def _slots(macro: MobileMacro) -> tuple[str, ...]:
    blocks = [
        f"stage{s}.block{b}"
        for s, stage in enumerate(macro.stages)
        for b in range(max(stage.depths))
    ]
    feature = ("feature",) if macro.feature_widths else ()
    return ("stem", *blocks, "head", "pool", *feature, "classifier")


def _lower(macro: MobileMacro, codes: tuple[int, ...]) -> Iterator[OpSpec | None]:
    code = iter(codes)
    hw = macro.resolutions[next(code)]
    width = macro.stem_widths[next(code)]
    stem = _conv(macro.in_channels, width, hw, macro.stem_kernel, macro.stem_stride, macro.stem_act)
    yield stem
    hw = stem.out_hw
    for stage in macro.stages:
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
            op = _block(stage, choice, width, out_width, hw, stride)
            yield op
            width, hw = out_width, op.out_hw if op is not None else hw
    head_width = macro.head_expand * width or macro.head_width
    yield _conv(width, head_width, hw, 1, 1, macro.head_act)
    yield _pool(head_width, hw)
    if macro.feature_widths:
        feature_width = macro.feature_widths[next(code)]
        yield OpSpec(
            kind="conv",
            in_channels=head_width,
            out_channels=feature_width,
            in_hw=1,
            out_hw=1,
            act=macro.head_act,
            norm="bias" if macro.feature_bias else "none",
        )
        head_width = feature_width
    yield _linear(head_width, macro.num_classes)


def _inverted_residual(stage: Stage, code: Iterator[int]) -> BlockOp:
    """The block of the next two codes: kernel and expansion."""
    return _block_op(stage.kernels[next(code)], stage.expands[next(code)])


@cache
def _block_op(kernel: int, expand: float) -> BlockOp:
    return BlockOp("", "dsconv" if expand == 1 else "mbconv", kernel, expand)


def _block(
    stage: Stage, choice: BlockOp, width: int, out_width: int, hw: int, stride: int
) -> OpSpec | None:
    """One block from `width` to `out_width` channels; None where it only passes its input on."""
    same_shape = stride == 1 and width == out_width
    if choice.kind == "skip":
        return None if same_shape else _conv(width, out_width, hw, 1, stride, stage.skip_act)
    mid = width if choice.expand == 1 else divisible(width * choice.expand)
    return _depthwise_block(
        choice.kind,
        width,
        mid,
        out_width,
        hw,
        choice.kernel,
        stride,
        choice.groups,
        divisible(mid * stage.se_ratio) if stage.se_ratio else 0,
        stage.act,
        same_shape or stage.project_shortcut,
        stage.out_act,
    )


# Cached because tables of a whole space (`index.py`) lower the same block thousands of times.
@lru_cache(maxsize=1 << 16)
def _depthwise_block(
    kind: str,
    in_channels: int,
    mid_channels: int,
    out_channels: int,
    in_hw: int,
    kernel: int,
    stride: int,
    groups: int,
    se_channels: int,
    act: Act,
    skip: bool,
    out_act: Act,
) -> OpSpec:
    return OpSpec(
        kind=kind,  # type: ignore[arg-type]
        in_channels=in_channels,
        mid_channels=mid_channels,
        out_channels=out_channels,
        in_hw=in_hw,
        out_hw=_out_hw(in_hw, kernel, stride),
        kernel=kernel,
        stride=stride,
        padding=kernel // 2,
        groups=groups,
        se_channels=se_channels,
        act=act,
        skip=skip,
        out_act=out_act,
    )


# --- cells ----------------------------------------------------------------------------------------


def _cell_slots(macro: CellMacro) -> tuple[str, ...]:
    found = ["stem"]
    for s in range(len(macro.widths)):
        if s:
            found += [f"reduce{s}.{part}" for part in ("conv_a", "conv_b", "pool", "shortcut")]
        found += [
            f"stage{s}.cell{c}.edge{i}{j}"
            for c in range(macro.cells_per_stage)
            for i, j in macro.edges
        ]
    return (*found, "norm", "pool", "classifier")


def _lower_cells(macro: CellMacro, codes: tuple[int, ...]) -> Iterator[OpSpec | None]:
    hw = macro.resolutions[codes[0]]
    yield _conv(macro.in_channels, macro.widths[0], hw, 3, 1, "none")
    for s, width in enumerate(macro.widths):
        if s:
            before, half = macro.widths[s - 1], _out_hw(hw, 3, 2)
            yield _conv(before, width, hw, 3, 2, "relu")
            yield _conv(width, width, half, 3, 1, "relu")
            yield OpSpec("avg_pool", before, before, hw, half, kernel=2, stride=2)
            yield OpSpec("conv", before, width, half, half, norm="none")
            hw = half
        for _ in range(macro.cells_per_stage):
            for code in codes[1:]:
                yield _cell_op(macro.ops[code], width, hw)
    yield OpSpec("norm", width, width, hw, hw, act="relu")
    yield _pool(width, hw)
    yield _linear(width, macro.num_classes)


@cache
def _cell_op(name: str, width: int, hw: int) -> OpSpec | None:
    """An edge of a NAS-Bench-201 cell; convolutions come as act-conv-BN (2001.00326, section 2)."""
    if name == "none":
        return None
    if name == "skip_connect":
        return OpSpec("identity", width, width, hw, hw)
    if name == "avg_pool_3x3":
        return OpSpec("avg_pool", width, width, hw, hw, kernel=3, padding=1)
    kernel = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}[name]
    return _conv(width, width, hw, kernel, 1, "relu")


# --- shared by both -------------------------------------------------------------------------------


@lru_cache(maxsize=1 << 14)
def _conv(
    in_channels: int, out_channels: int, hw: int, kernel: int, stride: int, act: Act
) -> OpSpec:
    return OpSpec(
        kind="conv",
        in_channels=in_channels,
        out_channels=out_channels,
        in_hw=hw,
        out_hw=_out_hw(hw, kernel, stride),
        kernel=kernel,
        stride=stride,
        padding=kernel // 2,
        act=act,
    )


@lru_cache(maxsize=1 << 12)
def _pool(channels: int, hw: int) -> OpSpec:
    return OpSpec("pool", channels, channels, hw, 1)


@lru_cache(maxsize=1 << 12)
def _linear(channels: int, num_classes: int) -> OpSpec:
    return OpSpec("linear", channels, num_classes, 1, 1)


def _out_hw(in_hw: int, kernel: int, stride: int) -> int:
    return (in_hw + 2 * (kernel // 2) - kernel) // stride + 1
