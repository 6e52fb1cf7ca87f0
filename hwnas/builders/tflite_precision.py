"""Converts fp32 graphs of LiteRT to the precision of a device: fp16 weights, or 8 bits.

In 8-bit graphs, operators without an 8-bit kernel in XNNPACK stay in float, between DEQUANTIZE and
QUANTIZE. Otherwise XNNPACK would only run parts of the graph. The rule looks at single operators,
so a network has the same operators as its micro-nets. Weights are signed and per channel,
activations are signed with a zero point, and biases have 32 bits (8-bit specification of
TensorFlow).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hwnas.builders.tflite_graph import INPUT, Graph, Op, Quantization, Tensor

__all__ = ["WEIGHTED", "Ranges", "quantizable", "to_precision"]

Ranges = Mapping[str, tuple[float, float]]
"""Minimum and maximum of every value of a graph."""

MADE_UP = (-4.0, 4.0)
WEIGHTED = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
"""Maps each operator with weights to the axis of the weights that has the output channels."""
KEEPING = ("RESHAPE", "TRANSPOSE", "PAD", "MAX_POOL_2D", "STRIDED_SLICE")
"""Operators whose output has the scale of their input."""
CLAMPING = ("RELU", "RELU6")
"""Operators that have no 8-bit kernel: a QUANTIZE to a range that starts at 0 replaces them."""
IN_8_BITS = (*WEIGHTED, *KEEPING, *CLAMPING, "ADD", "MUL", "MEAN", "LOGISTIC")
"""Operators that run in 8 bits; HARD_SWISH and AVERAGE_POOL_2D do not."""


def to_precision(
    graph: Graph,
    precision: Literal["fp32", "fp16", "int8"],
    *,
    ranges: Ranges | None = None,
    in_float: Collection[str] = (),
    rounded: Graph | None = None,
) -> Graph:
    """A float graph in another precision; fp32 is returned unchanged. Images and logits stay fp32.

    ranges: range of every value for 8 bits; None: synthetic ranges, which take the same time.
    in_float: outputs of operators that stay in float although `quantizable` lists them.
    rounded: the same graph with the weights and biases that layers in 8 bits use.
    """
    if precision == "fp32":
        return graph
    if precision == "fp16":
        return _to_fp16(graph)
    return _Quantizer(graph, ranges, in_float, rounded or graph).run()


def quantizable(graph: Graph) -> list[str]:
    """Outputs of the operators that can run in 8 bits, in the order of the graph."""
    return [op.output for op in graph.ops if _is_quantizable(graph, op)]


def _is_quantizable(graph: Graph, op: Op) -> bool:
    """Factors of the means at an edge, one per pixel, stay in float, as the means do."""
    is_factor = op.kind == "MUL" and graph.is_constant(op.inputs[1])
    is_map = is_factor and math.prod(graph.tensors[op.inputs[1]].shape[1:3]) > 1
    return op.kind in IN_8_BITS and not is_map


def _to_fp16(graph: Graph) -> Graph:
    """Converts weights to half precision; they are widened when the file is loaded."""
    made = graph.copy()
    made.ops = []
    halved: dict[str, str] = {}
    for op in graph.ops:
        inputs = list(op.inputs)
        for i, name in enumerate(inputs[1:] if op.kind in WEIGHTED else (), start=1):
            if name not in halved:
                tensor = graph.tensors[name]
                assert tensor.data is not None
                half = made.constant(f"{name}.fp16", tensor.data.astype(np.float16))
                halved[name] = made.add(Tensor(f"{name}.fp32", tensor.shape))
                made.ops.append(Op("DEQUANTIZE", (half,), halved[name]))
            inputs[i] = halved[name]
        made.ops.append(replace(op, inputs=tuple(inputs)))
    return made


class _Quantizer:
    """Rewrites a copy of a graph. The name of an 8-bit value is derived from the float value."""

    def __init__(
        self, graph: Graph, ranges: Ranges | None, in_float: Collection[str], rounded: Graph
    ) -> None:
        self.float, self.ranges, self.in_float, self.rounded = graph, ranges, in_float, rounded
        self.made = Graph(tensors={}, is_open=graph.is_open)
        self.forms: dict[str, set[str]] = {INPUT: {"float"}}  # existing forms of each value
        clamping = (op for op in graph.ops if op.kind in CLAMPING or op.fused != "NONE")
        self.clamped = {op.output for op in clamping}

    def run(self) -> Graph:
        self.made.add(self.float.tensors[INPUT])
        for op in self.float.ops:
            if _is_quantizable(self.float, op) and op.output not in self.in_float:
                self._quantized(op)
            else:
                self._kept(op)
        self.made.output = self._as_float(self.float.output)
        return self.made

    def _kept(self, op: Op) -> None:
        for name in op.inputs:
            if self.float.is_constant(name):
                self.made.add(self.float.tensors[name])
        inputs = tuple(
            name if self.float.is_constant(name) else self._as_float(name) for name in op.inputs
        )
        self.made.add(self.float.tensors[op.output])
        self.made.ops.append(replace(op, inputs=inputs))
        self.forms[op.output] = {"float"}

    def _quantized(self, op: Op) -> None:
        inputs = []
        for position, name in enumerate(op.inputs):
            if not self.float.is_constant(name):
                inputs.append(self._as_8_bits(name))
            elif op.kind in WEIGHTED:
                is_bias = position == 2
                inputs.append(self._bias(op) if is_bias else self._weight(op, name))
            else:
                inputs.append(self._other(name))
        if op.kind in KEEPING:
            scheme = self.made.tensors[inputs[0]].quantization
        elif op.kind == "LOGISTIC":
            scheme = Quantization(np.array([1 / 256], np.float32), -128)
        else:
            scheme = self._scheme(op.output)
        self._eight(op.output, scheme)
        made = replace(op, inputs=tuple(inputs), output=f"{op.output}.int8")
        self.made.ops.append(replace(made, kind="QUANTIZE") if op.kind in CLAMPING else made)
        self.forms[op.output] = {"int8"}

    def _as_float(self, name: str) -> str:
        if "float" not in self.forms[name]:
            self.made.add(self.float.tensors[name])
            self.made.ops.append(Op("DEQUANTIZE", (f"{name}.int8",), name))
            self.forms[name].add("float")
        return name

    def _as_8_bits(self, name: str) -> str:
        if "int8" not in self.forms[name]:
            self._eight(name, self._scheme(name))
            self.made.ops.append(Op("QUANTIZE", (name,), f"{name}.int8"))
            self.forms[name].add("int8")
        return f"{name}.int8"

    def _eight(self, name: str, scheme: Quantization | None) -> None:
        shape = self.float.tensors[name].shape
        self.made.add(Tensor(f"{name}.int8", shape, dtype="int8", quantization=scheme))

    def _scheme(self, name: str) -> Quantization:
        """Scale and zero point of the range of a value; 0 is represented exactly."""
        low, high = MADE_UP if self.ranges is None else self.ranges[name]
        low, high = 0.0 if name in self.clamped else min(low, 0.0), max(high, 0.0)
        scale = max(high - low, 1e-6) / 255
        zero_point = int(np.clip(round(-128 - low / scale), -128, 127))
        return Quantization(np.array([scale], np.float32), zero_point)

    def _weight(self, op: Op, name: str) -> str:
        weight, axis = self.rounded.tensors[name].data, WEIGHTED[op.kind]
        assert weight is not None
        rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
        bias = np.abs(self._float_bias(op)) / self._input_scale(op)
        scale = np.maximum(np.abs(rows).max(axis=1) / 127, bias / 2**30)  # a bias has 32 bits
        scale = np.maximum(scale, 1e-9).astype(np.float32)
        spread = scale.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
        whole = np.clip(np.round(weight / spread), -127, 127).astype(np.int8)
        scheme = Quantization(scale, 0, axis)
        return self.made.add(Tensor(f"{name}.int8", whole.shape, whole, "int8", scheme))

    def _bias(self, op: Op) -> str:
        weight = self.made.tensors[f"{op.inputs[1]}.int8"].quantization
        assert weight is not None
        scale = (weight.scale * self._input_scale(op)).astype(np.float32)
        whole = np.round(self._float_bias(op) / scale).astype(np.int32)
        name = f"{op.inputs[2]}.int32"
        return self.made.add(Tensor(name, whole.shape, whole, "int32", Quantization(scale)))

    def _float_bias(self, op: Op) -> NDArray[np.float64]:
        data = self.rounded.tensors[op.inputs[2]].data
        assert data is not None
        return np.asarray(data, dtype=np.float64)

    def _input_scale(self, op: Op) -> float:
        scheme = self.made.tensors[f"{op.inputs[0]}.int8"].quantization
        assert scheme is not None
        return float(scheme.scale[0])

    def _other(self, name: str) -> str:
        """A constant that is not a weight: a summand or factor in 8 bits, or integers."""
        tensor = self.float.tensors[name]
        data = tensor.data
        assert data is not None
        if tensor.dtype != "float32":
            return self.made.add(tensor)
        scale = np.array([(float(np.abs(data).max()) or 1.0) / 127], np.float32)
        whole = np.round(data / scale[0]).astype(np.int8)
        scheme = Quantization(scale)
        return self.made.add(Tensor(f"{name}.int8", whole.shape, whole, "int8", scheme))
