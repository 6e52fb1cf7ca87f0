"""Operators: the parts of a network, and the weighted layers inside each of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Literal, get_args

from hwnas.core.records import STRICT, sparse
from hwnas.core.store import content_hash
from hwnas.spaces.op_text import op_text
from hwnas.spaces.padding import PadMode, map_size, padding_of

__all__ = [
    "ACT_FIRST",
    "EXPANDING",
    "RECORDED",
    "Act",
    "BlockKind",
    "Gate",
    "Layer",
    "OpKind",
    "OpSpec",
    "RecurrentAct",
    "conv",
    "layers",
    "linear",
    "mean",
]

Act = Literal["none", "relu", "relu6", "hard_swish", "swish"]
RecurrentAct = Literal["none", "relu", "sigmoid", "tanh", "leaky_relu"]
Gate = Literal["hard_sigmoid", "sigmoid"]
BlockKind = Literal["conv", "mbconv", "dsconv", "uib", "fused"]
CellKind = Literal["avg_pool", "max_pool", "norm", "identity", "concat", "cut"]
ActFirstKind = Literal["sep_conv", "dil_conv", "factorized"]
RecordedKind = Literal["recall", "store", "activation", "product", "blend"]
RecurrentKind = Literal["embed", "join", "highway", "fold", RecordedKind]
OpKind = Literal[BlockKind, "basic", "pool", "linear", CellKind, ActFirstKind, RecurrentKind]
EXPANDING = ("mbconv", "uib", "fused")  # blocks with their own `mid_channels`
ACT_FIRST = get_args(ActFirstKind)  # each convolution reads an activation, in every network
RECORDED = get_args(RecordedKind)  # of networks that are only read from records, never built


@dataclass(frozen=True)
class OpSpec:
    """One timed unit of a network with square maps; the only key of latency rows.

    kind: see below.
    mid_channels: expanded width of a block; a position in `recall` and `store`; otherwise 0.
    groups: in a block, groups > 1 split its 1x1 convolutions, and channels are shuffled after the
        first one.
    expand_groups: > 1 splits only the expansion, without a shuffle (CPUBone 2603.26425).
    skip: the input is added to the output. If their shapes differ, the input first passes average
        pooling by `stride` and, if the channels differ, a 1x1 convolution without BN. In a `basic`
        block it passes a 1x1 convolution with this stride, and BN, instead.
    out_act: activation after that sum.
    norm: what follows the weights of a `conv`: BN, a bias, or nothing.
    padding: rows and columns of zeros on every side.
    pad_more: further rows and columns at the bottom and on the right (TensorFlow's SAME:
        `same_padding`).
    se_act, se_gate: activations within SE.

    Kinds: `conv` is conv-BN-act. `mbconv` is 1x1 expand, depthwise, [SE], 1x1 project. `dsconv` is
    depthwise, [SE], 1x1. `uib` is the universal inverted bottleneck of MobileNetV4 (2404.10518):
    [depthwise of `start_kernel`, without activation], 1x1 expand, [depthwise of `kernel`], [SE],
    1x1 project. A kernel of 0 omits that depthwise convolution; the last one present has the
    stride. `fused` expands with a convolution of size `kernel` instead of 1x1 and depthwise
    convolutions (EfficientNetV2 2104.00298). `basic` is the block of ResNet-18 (1512.03385, figure
    5): two convolutions of size `kernel`, the first with the stride and `mid_channels`. `pool` is
    the global mean. `linear` has a bias and reads a pooled vector (hw 1). Cells also have
    `avg_pool` and `max_pool` (windows of `kernel`), `norm` (BN-act only), `identity`, `concat`
    (concatenates its sources, instead of their sum) and `cut` (the first `out_channels` channels).
    The cells of DARTS (1806.09055, appendix A.1.1) have three more. `dil_conv` is
    act-depthwise-1x1-BN with `dilation`. `sep_conv` is two of these; the second has stride 1.
    `factorized` concatenates two act-1x1-BN of stride 2; the second begins at the second row and
    column.

    Recurrent cells (appendix A.1.2) read a token and the state, a vector. `embed` is the row of the
    token in the weights of `linear` (tied, so it has no weights of its own). `highway` is
    x + sigmoid(c) * (act(h) - x) with [c, h] = W x. `join` is the same with the state instead of x,
    and W applied to [input, state]. `fold` is the mean of blocks of `out_channels` channels, and
    the next state. In those of NAS-Bench-NLP, `recall` returns the block of the state that begins
    at channel `mid_channels`, `store` puts its input there in the next state, `activation` is `act`
    only, `product` multiplies blocks, and `blend` is z * a + (1 - z) * b of its blocks [z, a, b].
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
    act: Act | RecurrentAct = "none"
    skip: bool = False
    norm: Literal["bn", "bias", "none"] = "bn"
    out_act: Act = "none"
    pad_more: int = 0
    se_act: Act = "relu"
    se_gate: Gate = "hard_sigmoid"
    start_kernel: int = 0
    expand_groups: int = 1
    dilation: int = 1

    @cached_property
    def key(self) -> str:
        """16 hex digits. They stay the same when fields with defaults are added to this class."""
        return content_hash(sparse(self))

    @property
    def has_projection(self) -> bool:
        """Whether the residual connection needs its own convolution."""
        strides = self.kind == "basic" and self.stride > 1
        return self.skip and (strides or self.in_channels != self.out_channels)

    @property
    def pools_shortcut(self) -> bool:
        """Whether the residual connection begins with average pooling."""
        return self.skip and self.stride > 1 and self.kind != "basic"

    @property
    def kernels(self) -> tuple[int, ...]:
        """Window sizes of the operator, in the order of its layers."""
        return tuple(kernel for kernel in (self.start_kernel, self.kernel) if kernel)

    def __str__(self) -> str:
        return op_text(self)


@dataclass(frozen=True)
class Layer:
    """One convolution or linear layer inside an OpSpec, named as in timm (`se.conv_reduce`).

    The weight has shape [out_channels, in_channels / groups, kernel, kernel]. A linear layer has
    kernel 1 on a 1x1 map. `act` follows the layer (after BN if `has_bn`); in operators of
    `ACT_FIRST` it comes first.
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
    pad_more: int = 0
    shuffles: bool = False
    dilation: int = 1


@lru_cache(maxsize=1 << 15)
def layers(op: OpSpec) -> tuple[Layer, ...]:
    """The weighted layers of `op` in execution order; empty for operators without weights."""
    if op.kind == "linear":
        return (
            Layer("linear", op.in_channels, op.out_channels, 1, 1, has_bn=False, has_bias=True),
        )
    if op.kind in ("join", "highway"):
        reads = op.in_channels + op.out_channels * (op.kind == "join")
        return (Layer("linear", reads, 2 * op.out_channels, 1, 1, has_bn=False),)
    if op.kind == "conv":
        return (_window("conv", op, op.in_channels, op.out_channels, groups=op.groups),)
    if op.kind == "factorized":
        first = _window("conv_1", op, op.in_channels, op.out_channels // 2, groups=1)
        return first, replace(first, name="conv_2")
    if op.kind in ("sep_conv", "dil_conv", "basic"):
        return tuple(_basic(op) if op.kind == "basic" else _separable(op))
    if op.kind not in _NAMES:
        return ()
    mid, (expansion, depthwise, projection) = op.mid_channels, _NAMES[op.kind]
    found = []
    if op.start_kernel:
        found.append(_start(op))
    hw = found[-1].out_hw if found else op.in_hw
    if op.kind == "fused":
        found.append(_window("conv_exp", op, op.in_channels, mid, groups=op.expand_groups))
    elif op.kind != "dsconv":
        groups = max(op.groups, op.expand_groups)
        ends, shuffles = (op.in_channels, mid, hw, hw), op.groups > 1
        found.append(Layer(expansion, *ends, groups=groups, act=op.act, shuffles=shuffles))
    if op.kernel and op.kind != "fused":
        found.append(_window(depthwise, op, mid, mid, groups=mid))
    if op.se_channels:
        reduce, expand = (mid, op.se_channels), (op.se_channels, mid)
        found += [
            Layer("se.conv_reduce", *reduce, 1, 1, has_bn=False, has_bias=True, act=op.se_act),
            Layer("se.conv_expand", *expand, 1, 1, has_bn=False, has_bias=True, act=op.se_gate),
        ]
    found.append(Layer(projection, mid, op.out_channels, op.out_hw, op.out_hw, groups=op.groups))
    if op.has_projection:
        ends = op.in_channels, op.out_channels, op.out_hw, op.out_hw
        found.append(Layer("conv_shortcut", *ends, has_bn=False))
    return tuple(found)


def _basic(op: OpSpec) -> Iterator[Layer]:
    """Two convolutions, and that of the residual connection if it has one."""
    yield _window("conv1", op, op.in_channels, op.mid_channels, groups=1)
    inner = replace(op, in_hw=op.out_hw, stride=1, act="none")
    yield _window("conv2", inner, op.mid_channels, op.out_channels, groups=1)
    if op.has_projection:
        ends = op.in_channels, op.out_channels, op.in_hw, op.out_hw
        yield Layer("conv_shortcut", *ends, stride=op.stride)


def _separable(op: OpSpec) -> Iterator[Layer]:
    """Pairs of a depthwise convolution and a 1x1 convolution with BN."""
    before, n_pairs = op.in_channels, 2 if op.kind == "sep_conv" else 1
    for n in range(1, n_pairs + 1):
        depthwise = replace(_window(f"dw{n}", op, before, before, groups=before), has_bn=False)
        yield depthwise if n == 1 else replace(depthwise, in_hw=op.out_hw, stride=1)
        after = op.out_channels if n == n_pairs else before
        yield Layer(f"pw{n}", before, after, op.out_hw, op.out_hw)


_NAMES = {
    "mbconv": ("conv_pw", "conv_dw", "conv_pwl"),
    "dsconv": ("", "conv_dw", "conv_pw"),
    "fused": ("conv_exp", "", "conv_pwl"),
    "uib": ("pw_exp", "dw_mid", "pw_proj"),
}
"""Names of the layers of a block in timm: expansion, depthwise convolution, projection."""


def _window(name: str, op: OpSpec, in_channels: int, out_channels: int, *, groups: int) -> Layer:
    """The layer with the kernel, stride, padding and activation of its operator."""
    ends = in_channels, out_channels, op.in_hw, op.out_hw
    return Layer(
        name,
        *ends,
        op.kernel,
        op.stride,
        op.padding,
        groups,
        has_bn=op.norm == "bn",
        has_bias=op.norm == "bias",
        act=op.act,
        pad_more=op.pad_more,
        dilation=op.dilation,
    )


def _start(op: OpSpec) -> Layer:
    """The depthwise convolution before the expansion. It has the stride if it is the only one."""
    whole = _window("dw_start", op, op.in_channels, op.in_channels, groups=op.in_channels)
    found = replace(whole, kernel=op.start_kernel, act="none")
    if not op.kernel:
        return found
    padding, pad_more = padding_of("symmetric", op.in_hw, op.start_kernel, 1)
    return replace(found, stride=1, out_hw=op.in_hw, padding=padding, pad_more=pad_more)


# Cached, because tables of a whole space (`index.py`) lower the same operators thousands of times.
@lru_cache(maxsize=1 << 15)
def conv(
    in_channels: int,
    out_channels: int,
    hw: int,
    kernel: int,
    stride: int,
    act: Act,
    pad_mode: PadMode = "symmetric",
) -> OpSpec:
    """A convolution with BN. Padding: half the kernel, which must be odd, or TensorFlow's SAME."""
    padding, pad_more = padding_of(pad_mode, hw, kernel, stride)
    ends = in_channels, out_channels, hw, map_size(hw, stride)
    return OpSpec(
        "conv",
        *ends,
        kernel=kernel,
        stride=stride,
        padding=padding,
        pad_more=pad_more,
        act=act,
    )


@lru_cache(maxsize=1 << 12)
def mean(channels: int, hw: int) -> OpSpec:
    """Global average pooling."""
    return OpSpec("pool", channels, channels, hw, 1)


@lru_cache(maxsize=1 << 12)
def linear(channels: int, num_classes: int) -> OpSpec:
    """A linear layer with bias, such as the classifier after the pooling."""
    return OpSpec("linear", channels, num_classes, 1, 1)
