"""`lower()`: from codes to operators, the only place where shapes are computed."""

from __future__ import annotations

from hwnas.core.store import content_hash
from hwnas.spaces.arch import Arch
from hwnas.spaces.macro import Act, MobileMacro, divisible
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.space import SearchSpace

__all__ = ["graph", "lower", "lower_slots", "network_key", "slot_names"]


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


def slot_names(space: SearchSpace) -> tuple[str, ...]:
    """Names of the slots of `lower_slots`, e.g. `stem`, `stage0.block1`, `head`, `classifier`."""
    blocks = [
        f"stage{s}.block{b}"
        for s, stage in enumerate(space.macro.stages)
        for b in range(max(stage.depths))
    ]
    return ("stem", *blocks, "head", "pool", "classifier")


def lower_slots(macro: MobileMacro, codes: tuple[int, ...]) -> tuple[OpSpec | None, ...]:
    """One entry per slot of the space; None where the arch has no operator there."""
    code = iter(codes)
    hw = macro.resolutions[next(code)]
    width = macro.stem_widths[next(code)]
    slots: list[OpSpec | None] = [
        _conv(macro.in_channels, width, hw, macro.stem_kernel, macro.stem_stride, macro.stem_act)
    ]
    hw = _out_hw(hw, macro.stem_kernel, macro.stem_stride)
    for stage in macro.stages:
        out_width = stage.widths[next(code)]
        depth = stage.depths[next(code)]
        for block in range(max(stage.depths)):
            kernel, expand = stage.kernels[next(code)], stage.expands[next(code)]
            if block >= depth:
                slots.append(None)
                continue
            stride = stage.stride if block == 0 else 1
            mid = width if expand == 1 else divisible(width * expand)
            out_hw = _out_hw(hw, kernel, stride)
            slots.append(
                OpSpec(
                    kind="dsconv" if expand == 1 else "mbconv",
                    in_channels=width,
                    mid_channels=mid,
                    out_channels=out_width,
                    in_hw=hw,
                    out_hw=out_hw,
                    kernel=kernel,
                    stride=stride,
                    padding=kernel // 2,
                    se_channels=divisible(mid * stage.se_ratio) if stage.se_ratio else 0,
                    act=stage.act,
                    skip=stride == 1 and width == out_width,
                )
            )
            width, hw = out_width, out_hw
    slots.append(_conv(width, macro.head_width, hw, 1, 1, macro.head_act))
    slots.append(OpSpec("pool", macro.head_width, macro.head_width, hw, 1))
    slots.append(OpSpec("linear", macro.head_width, macro.num_classes, 1, 1))
    return tuple(slots)


def graph(space: SearchSpace, arch: Arch) -> tuple[tuple[OpSpec, ...], tuple[tuple[int, int], ...]]:
    """Nodes and directed edges of one arch: for chain spaces, the chain of `lower()`."""
    nodes = lower(space, arch)
    return nodes, tuple((i, i + 1) for i in range(len(nodes) - 1))


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


def _out_hw(in_hw: int, kernel: int, stride: int) -> int:
    return (in_hw + 2 * (kernel // 2) - kernel) // stride + 1
