"""Analytic costs of operators and archs: MACs, parameters, weight bytes, peak activation memory.

MACs are multiply-accumulates of convolutions and linear layers (papers often call them "FLOPs").
Parameters are weights, biases, and BN scale and shift. `memory.py` defines peak memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.spaces.choice import Codes
from hwnas.spaces.index import enumerate_ops, op_max, op_sum
from hwnas.spaces.memory import graph_peaks, op_peak_values
from hwnas.spaces.ops import Layer, OpSpec, layers

if TYPE_CHECKING:
    from hwnas.spaces.space import SearchSpace

__all__ = [
    "AnalyticMetric",
    "Precision",
    "cost",
    "op_macs",
    "op_params",
    "op_weight_bytes",
]

AnalyticMetric = Literal["macs", "params", "weight_bytes", "peak_memory_bytes"]
Precision = Literal["fp32", "fp16", "int8"]

BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 1}
INT8_CHANNEL_BYTES = 8  # per output channel: an int32 bias and an fp32 scale


def op_macs(op: OpSpec) -> int:
    """Multiply-accumulates of one operator at batch 1."""
    return sum(layer.out_hw**2 * _weights(layer) for layer in layers(op))


def op_params(op: OpSpec) -> int:
    """Trainable parameters of one operator, including BN scale and shift."""
    if op.kind == "norm":
        return 2 * op.out_channels
    return sum(
        _weights(layer) + layer.out_channels * (2 * layer.has_bn + layer.has_bias)
        for layer in layers(op)
    )


def op_weight_bytes(op: OpSpec, precision: Precision) -> int:
    """Bytes of the deployed weights, with BN folded into one bias per output channel.

    int8: one byte per weight, and an int32 bias and an fp32 scale per output channel (per-channel
        symmetric quantisation, as in ONNX Runtime and TensorRT).
    """
    size = BYTES[precision]
    per_channel = INT8_CHANNEL_BYTES if precision == "int8" else size
    if op.kind == "norm":
        return 2 * op.out_channels * per_channel
    has_bias = [layer.has_bn or layer.has_bias or precision == "int8" for layer in layers(op)]
    return sum(
        size * _weights(layer) + per_channel * layer.out_channels * biased
        for layer, biased in zip(layers(op), has_bias, strict=True)
    )


def _weights(layer: Layer) -> int:
    return layer.out_channels * (layer.in_channels // layer.groups) * layer.kernel**2


_PER_OP: dict[str, Callable[[OpSpec, Precision], int]] = {
    "macs": lambda op, precision: op_macs(op),
    "params": lambda op, precision: op_params(op),
    "weight_bytes": op_weight_bytes,
    "peak_memory_bytes": lambda op, precision: BYTES[precision] * op_peak_values(op),
}


@lru_cache(maxsize=128)
def _table(space: SearchSpace, metric: AnalyticMetric, precision: Precision) -> NDArray[np.int64]:
    per_op = _PER_OP[metric]
    return np.array([per_op(op, precision) for op in enumerate_ops(space)], dtype=np.int64)


def cost(
    space: SearchSpace, codes: Codes, metric: AnalyticMetric, *, precision: Precision = "fp32"
) -> NDArray[np.int64]:
    """One analytic cost of every row of `codes`, int64 [n].

    Only `weight_bytes` depends on `precision`.

    Raises:
        UserError: unknown metric or precision.
    """
    for kind, given, known in (
        ("metric", metric, get_args(AnalyticMetric)),
        ("precision", precision, get_args(Precision)),
    ):
        if given not in known:
            raise UserError(f"unknown {kind}", expected=f"one of {', '.join(known)}", found=given)
    if metric != "peak_memory_bytes":
        return op_sum(space, codes, _table(space, metric, precision))
    if space.macro.is_chain:  # one value between operators, so one operator has the peak
        return op_max(space, codes, _table(space, metric, precision))
    return BYTES[precision] * graph_peaks(space, codes)
