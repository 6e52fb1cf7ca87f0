"""`lower()`: from codes to operators, the only place where shapes are computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from hwnas.core.records import STRICT, dump
from hwnas.core.store import content_hash
from hwnas.spaces.arch import Arch
from hwnas.spaces.macro import Act, MobileMacro, divisible
from hwnas.spaces.space import Codes, SearchSpace

__all__ = [
    "Layer",
    "OpKind",
    "OpSpec",
    "enumerate_ops",
    "graph",
    "layers",
    "lower",
    "lower_slots",
    "network_key",
    "op_index",
    "slot_names",
    "slot_ops",
]

OpKind = Literal["conv", "mbconv", "dsconv", "pool", "linear"]


@dataclass(frozen=True)
class OpSpec:
    """One timed unit of a network with square maps; the only key of latency rows.

    kind: `conv` (conv-BN-act), `mbconv` (1x1 expand, depthwise, [SE], 1x1 project), `dsconv`
    (depthwise, [SE], 1x1), `pool` (global mean), `linear` (with bias, on a pooled vector, hw 1).
    `mid_channels` is the depthwise width of a block and 0 elsewhere. `skip` adds the input back.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    kind: OpKind
    in_channels: int
    out_channels: int
    in_hw: int
    out_hw: int
    mid_channels: int = 0
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = 1
    se_channels: int = 0
    act: Act = "none"
    skip: bool = False

    @cached_property
    def key(self) -> str:
        """16 hex digits, stable across versions of this class that add fields with defaults."""
        data = {k: v for k, v in dump(self, versioned=False).items() if v != _DEFAULTS.get(k)}
        return content_hash(data)

    def __str__(self) -> str:
        text = f"{self.kind} {self.in_channels}>{self.out_channels} {self.in_hw}>{self.out_hw}px"
        if self.kind != "pool":
            text += f" k{self.kernel}s{self.stride}"
        if self.mid_channels:
            text += f" mid{self.mid_channels}"
        if self.se_channels:
            text += f" se{self.se_channels}"
        return text + (f" {self.act}" if self.act != "none" else "") + (" skip" * self.skip)


_DEFAULTS = {
    name: field.default for name, field in OpSpec.__dataclass_fields__.items() if field.init
}


@dataclass(frozen=True)
class Layer:
    """One convolution or linear layer inside an OpSpec, named as in timm (`se.conv_reduce`).

    Weight shape [out_channels, in_channels / groups, kernel, kernel]; a linear layer: kernel 1 on
    a 1x1 map. `act` follows the layer (after BN where `has_bn`).
    """

    name: str
    in_channels: int
    out_channels: int
    in_hw: int
    out_hw: int
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = 1
    has_bn: bool = True
    has_bias: bool = False
    act: str = "none"


def layers(op: OpSpec) -> tuple[Layer, ...]:
    """The weighted layers of `op` in execution order; empty for `pool`."""
    if op.kind == "pool":
        return ()
    if op.kind == "linear":
        return (
            Layer("linear", op.in_channels, op.out_channels, 1, 1, has_bn=False, has_bias=True),
        )
    mid = op.mid_channels or op.out_channels
    spatial = Layer(
        name="conv" if op.kind == "conv" else "conv_dw",
        in_channels=op.in_channels if op.kind == "conv" else mid,
        out_channels=mid,
        in_hw=op.in_hw,
        out_hw=op.out_hw,
        kernel=op.kernel,
        stride=op.stride,
        padding=op.padding,
        groups=op.groups if op.kind == "conv" else mid,
        act=op.act,
    )
    if op.kind == "conv":
        return (spatial,)
    found = [spatial]
    if op.kind == "mbconv":
        found.insert(0, Layer("conv_pw", op.in_channels, mid, op.in_hw, op.in_hw, act=op.act))
    if op.se_channels:
        reduce, expand = (mid, op.se_channels), (op.se_channels, mid)
        found += [
            Layer("se.conv_reduce", *reduce, 1, 1, has_bn=False, has_bias=True, act="relu"),
            Layer("se.conv_expand", *expand, 1, 1, has_bn=False, has_bias=True, act="hard_sigmoid"),
        ]
    last = "conv_pwl" if op.kind == "mbconv" else "conv_pw"
    found.append(Layer(last, mid, op.out_channels, op.out_hw, op.out_hw))
    return tuple(found)


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


# --- arrays of archs ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _SlotTable:
    """Operator ids of one slot for every combination of the few choices that it depends on."""

    columns: tuple[int, ...]
    ids: NDArray[np.int32]  # shape: len(values) of each column


_DISALLOWED = np.iinfo(np.int32).max  # any table indexed with it fails loudly


@lru_cache(maxsize=32)
def _slot_tables(space: SearchSpace) -> tuple[tuple[OpSpec, ...], tuple[_SlotTable, ...]]:
    """All reachable operators, and per slot the table from local codes to operator ids."""
    largest = [len(choice.values) - 1 for choice in space.choices]
    ops: dict[OpSpec, int] = {}
    tables = []
    for slot, columns in enumerate(_slot_columns(space, largest)):
        shape = [len(space.choices[column].values) for column in columns]
        ids = np.empty(shape, dtype=np.int32)
        for local in product(*(range(n) for n in shape)):
            codes = list(largest)
            for column, code in zip(columns, local, strict=True):
                codes[column] = code
            op = lower_slots(space.macro, tuple(codes))[slot]
            if op is None:
                ids[local] = -1
            elif all(c in space.allowed[column] for column, c in zip(columns, local, strict=True)):
                ids[local] = ops.setdefault(op, len(ops))
            else:
                ids[local] = _DISALLOWED
        tables.append(_SlotTable(tuple(columns), ids))
    return tuple(ops), tuple(tables)


def _slot_columns(space: SearchSpace, largest: list[int]) -> list[list[int]]:
    """Which choices each slot depends on, found by changing one choice of the largest at a time."""
    reference = lower_slots(space.macro, tuple(largest))
    columns: list[list[int]] = [[] for _ in reference]
    for column, choice in enumerate(space.choices):
        variants = [
            lower_slots(space.macro, (*largest[:column], code, *largest[column + 1 :]))
            for code in range(len(choice.values))
        ]
        for slot, depends in enumerate(columns):
            if any(changed[slot] != reference[slot] for changed in variants):
                depends.append(column)
    return columns


def enumerate_ops(space: SearchSpace) -> tuple[OpSpec, ...]:
    """All distinct operators of the (possibly restricted) space, in a fixed order."""
    return _slot_tables(space)[0]


def slot_ops(space: SearchSpace) -> tuple[tuple[OpSpec, ...], ...]:
    """Per slot of `slot_names`, its distinct operators; those of the space before any `restrict`.

    What a weight shared by all of them must fit, hence the same for a space and its prunings.
    """
    ops, tables = _slot_tables(replace(space, allowed=()))
    return tuple(tuple(ops[i] for i in np.unique(table.ids) if i >= 0) for table in tables)


def op_index(space: SearchSpace, codes: Codes) -> NDArray[np.int32]:
    """int32 [n, p]: operator of every slot as an index into `enumerate_ops`; -1 = absent.

    Every additive cost is `table[op_index].sum(1)` with a zero appended for -1. Equal to `lower()`
    for canonical codes (tested on random archs of every space). Codes that the space does not
    allow get an index out of every table's range.
    """
    tables = _slot_tables(space)[1]
    result = np.empty((len(codes), len(tables)), dtype=np.int32)
    for slot, table in enumerate(tables):
        local = tuple(codes[:, column] for column in table.columns)
        result[:, slot] = table.ids[local] if local else table.ids
    return result


def graph(space: SearchSpace, arch: Arch) -> tuple[tuple[OpSpec, ...], tuple[tuple[int, int], ...]]:
    """Nodes and directed edges of one arch: for chain spaces, the chain of `lower()`."""
    nodes = lower(space, arch)
    return nodes, tuple((i, i + 1) for i in range(len(nodes) - 1))
