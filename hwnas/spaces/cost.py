"""Analytic costs of operators and archs: MACs, parameters, weight bytes, peak activation memory.

MACs are multiply-accumulates of convolutions and linear layers (what papers print as "FLOPs").
Parameters count weights, biases, and BN scale and shift. Peak memory is the largest live set of
activations of an execution in layer order at batch 1, with the residual input kept until its add.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces.index import enumerate_ops, op_index
from hwnas.spaces.ops import OpSpec, layers
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["AnalyticMetric", "cost", "op_macs", "op_params", "op_peak_memory_bytes"]

AnalyticMetric = Literal["macs", "params", "weight_bytes", "peak_memory_bytes"]

BYTES_PER_VALUE = 4  # fp32


def op_macs(op: OpSpec) -> int:
    """Multiply-accumulates of one operator at batch 1."""
    return sum(
        layer.out_hw**2 * layer.out_channels * (layer.in_channels // layer.groups) * layer.kernel**2
        for layer in layers(op)
    )


def op_params(op: OpSpec) -> int:
    """Trainable parameters of one operator, BN scale and shift included."""
    return sum(
        layer.out_channels * (layer.in_channels // layer.groups) * layer.kernel**2
        + layer.out_channels * (2 * layer.has_bn + layer.has_bias)
        for layer in layers(op)
    )


def op_weight_bytes(op: OpSpec) -> int:
    """Bytes of the deployed fp32 weights: BN folded into one bias per output channel."""
    return BYTES_PER_VALUE * sum(
        layer.out_channels * ((layer.in_channels // layer.groups) * layer.kernel**2 + 1)
        for layer in layers(op)
    )


def op_peak_memory_bytes(op: OpSpec) -> int:
    """Largest live set of fp32 activations inside one operator at batch 1."""
    block_input = op.in_channels * op.in_hw**2
    if op.kind == "pool":
        return BYTES_PER_VALUE * (block_input + op.out_channels)
    peak, before_gate = 0, 0
    for position, layer in enumerate(layers(op)):
        live = layer.in_channels * layer.in_hw**2 + layer.out_channels * layer.out_hw**2
        if op.skip and position > 0:
            live += block_input
        if layer.name == "conv_dw":
            before_gate = layer.out_channels * layer.out_hw**2
        if layer.name.startswith("se."):
            live += before_gate  # the tensor that the gate will scale
        peak = max(peak, live)
    return BYTES_PER_VALUE * peak


_PER_OP: dict[str, tuple[Callable[[OpSpec], int], bool]] = {
    "macs": (op_macs, True),
    "params": (op_params, True),
    "weight_bytes": (op_weight_bytes, True),
    "peak_memory_bytes": (op_peak_memory_bytes, False),
}


@lru_cache(maxsize=128)
def _table(space: SearchSpace, metric: AnalyticMetric) -> NDArray[np.int64]:
    per_op, _ = _PER_OP[metric]
    return np.array([*(per_op(op) for op in enumerate_ops(space)), 0], dtype=np.int64)


def cost(space: SearchSpace, codes: Codes, metric: AnalyticMetric) -> NDArray[np.int64]:
    """int64 [n]: one analytic cost of every row of `codes`."""
    values = _table(space, metric)[op_index(space, codes)]
    result: NDArray[np.int64] = values.sum(axis=1) if _PER_OP[metric][1] else values.max(axis=1)
    return result
