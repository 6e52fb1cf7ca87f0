"""Converts fp32 graphs to the precision of a device, for timing: fp16, or int8 QDQ.

Weights and scales are synthetic, as in `onnx.py`, because only the graph determines the latency.
The graph equals that of ONNX Runtime's static quantiser (QDQ, uint8 activations, int8 weights per
channel) for the same network, node for node (tested), but is made in milliseconds instead of half
a second. TensorRT needs another form: signed activations, unquantised biases, and activation
functions left in place for it to fuse. Deployed files are calibrated by an exporter.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hwnas.core.errors import UserError

__all__ = ["to_precision"]

ACTIVATION_SCALE = np.float32(4 / 128)  # for values in about [-4, 4]
WEIGHTED = ("Conv", "Gemm", "BatchNormalization")  # value, weights, bias
QUANTIZED = (*WEIGHTED, "Add", "Mul")  # these read and write 8 bits
FOLLOWING = (
    "AveragePool",
    "MaxPool",
    "ReduceMean",
    "Reshape",
    "Transpose",
)  # 8 bits only if their input has 8 bits
ABSORBED = ("Relu", "Clip")  # removed after these: quantisation clips, engines fuse it
ABSORBING = ("Conv", "BatchNormalization")


def to_precision(
    model: onnx.ModelProto,
    precision: Literal["fp32", "fp16", "int8"],
    *,
    for_tensorrt: bool = False,
    float_io: bool = False,
) -> onnx.ModelProto:
    """The model of `onnx.py` in another precision; fp32 models are returned unchanged.

    Inputs and outputs of fp16 models are fp16, or cast inside the graph with `float_io`. Those of
    int8 models stay fp32.

    Raises:
        UserError: an 8-bit model of a recurrent cell.
    """
    if precision == "fp32":
        return model
    if precision == "int8" and any(node.op_type == "Split" for node in model.graph.node):
        raise UserError(
            "recurrent cells are not supported in 8 bits yet",
            expected="precision fp32 or fp16",
            found="int8",
            where="the precision of the device",
            fix="use a device file with precision fp32 or fp16",
        )
    converted = onnx.ModelProto()
    converted.CopyFrom(model)
    if precision == "fp16":
        _to_fp16(converted.graph)
        if float_io:
            _cast_io(converted.graph)
    else:
        _Quantizer(converted.graph, for_tensorrt=for_tensorrt).run()
    return converted


def _to_fp16(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            half = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16


def _cast_io(graph: onnx.GraphProto) -> None:
    """Gives an fp16 graph fp32 inputs and outputs."""
    inner = {value.name: f"{value.name}.fp16" for value in (*graph.input, *graph.output)}
    body = list(graph.node)
    for node in body:
        node.input[:] = [inner.get(name, name) for name in node.input]
        node.output[:] = [inner.get(name, name) for name in node.output]
    first = [
        helper.make_node(
            "Cast", [v.name], [inner[v.name]], f"{v.name}.cast", to=TensorProto.FLOAT16
        )
        for v in graph.input
    ]
    last = [
        helper.make_node("Cast", [inner[v.name]], [v.name], f"{v.name}.cast", to=TensorProto.FLOAT)
        for v in graph.output
    ]
    del graph.node[:]
    graph.node.extend([*first, *body, *last])
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT


class _Quantizer:
    """Rewrites a graph in place."""

    def __init__(self, graph: onnx.GraphProto, *, for_tensorrt: bool) -> None:
        self.graph, self.for_tensorrt = graph, for_tensorrt
        self.zero_point = np.array(0, np.int8) if for_tensorrt else np.array(128, np.uint8)
        self.constants = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer
        }
        self.kept: dict[str, NDArray[np.generic]] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.dequantized: dict[str, str] = {}

    def run(self) -> None:
        originals = list(self.graph.node)
        readers = Counter(name for node in originals for name in node.input)
        consumers = {name: node for node in originals for name in node.input if readers[name] == 1}
        read_as_8_bits = {
            name for node in originals if node.op_type in QUANTIZED for name in node.input
        }
        skipped: dict[str, str] = {}
        for node in originals:
            if node.op_type in ABSORBED and node.input[0] in skipped:
                continue
            output = node.output[0]
            follower = consumers.get(output)
            if node.op_type in ABSORBING and follower and follower.op_type in ABSORBED:
                is_fused = self.for_tensorrt
                if not is_fused:
                    skipped[output] = output = follower.output[0]
            else:
                is_fused = False
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            del copy.input[:]
            copy.input.extend(self._input(node, name) for name in node.input)
            copy.output[0] = output
            self.nodes.append(copy)
            follows = node.op_type in FOLLOWING and node.input[0] in self.dequantized
            has_8_bits = node.op_type in QUANTIZED or follows or output in read_as_8_bits
            if has_8_bits and not is_fused:
                self._pair(output)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        del self.graph.initializer[:]
        self.graph.initializer.extend(
            numpy_helper.from_array(value, name) for name, value in self.kept.items()
        )

    def _input(self, node: onnx.NodeProto, name: str) -> str:
        if name not in self.constants:
            if node.op_type in QUANTIZED and name not in self.dequantized:  # the input of the graph
                self._pair(name)
            return self.dequantized.get(name, name)
        value = self.constants[name]
        is_bias = node.op_type in WEIGHTED and name in node.input[2:3]
        is_other = node.op_type not in WEIGHTED or name in node.input[3:]  # mean and variance
        if is_other or (is_bias and self.for_tensorrt):
            self.kept[name] = value
            return name
        return self._bias(node, name, value) if is_bias else self._weight(name, value)

    def _weight(self, name: str, value: NDArray[np.generic]) -> str:
        weight = np.asarray(value, dtype=np.float32)
        scale = np.abs(weight).reshape(len(weight), -1).max(axis=1) / np.float32(127)
        spread = scale.reshape(-1, *[1] * (weight.ndim - 1))
        whole = np.round(weight / spread).astype(np.int8)
        return self._dequantize(name, whole, scale, np.zeros(len(scale), np.int8))

    def _bias(self, node: onnx.NodeProto, name: str, value: NDArray[np.generic]) -> str:
        scale = ACTIVATION_SCALE * self.kept[f"{node.input[1]}_scale"]
        whole = np.round(np.asarray(value, np.float32) / scale).astype(np.int32)
        return self._dequantize(name, whole, scale, np.zeros(len(whole), np.int32))

    def _dequantize(
        self,
        name: str,
        value: NDArray[np.generic],
        scale: NDArray[np.float32],
        zero: NDArray[np.generic],
    ) -> str:
        names = [f"{name}_quantized", f"{name}_scale", f"{name}_zero_point"]
        self.kept |= dict(zip(names, (value, scale, zero), strict=True))
        self.nodes.append(helper.make_node("DequantizeLinear", names, [name], axis=0))
        return name

    def _pair(self, name: str) -> None:
        """Quantises and dequantises a value; later readers use the result."""
        self.kept |= {"scale": np.array(ACTIVATION_SCALE), "zero_point": self.zero_point}
        names = (f"{name}.q", f"{name}.dq")
        constants = ["scale", "zero_point"]
        self.nodes += [
            helper.make_node("QuantizeLinear", [name, *constants], [names[0]]),
            helper.make_node("DequantizeLinear", [names[0], *constants], [names[1]]),
        ]
        self.dequantized[name] = names[1]
