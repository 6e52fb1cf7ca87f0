"""ONNX nodes of operators, with random weights."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hwnas.core.rng import rng
from hwnas.spaces.ops import ACT_FIRST, Layer, OpSpec, layers

__all__ = ["INPUT", "OPSET", "OUTPUT", "GraphBuilder", "with_least_ir"]

OPSET = 18  # the opset of the exporter
INPUT, OUTPUT = "input", "logits"
BN_EPS = 1e-5
ALL = (1 << 63) - 1  # end of a slice that is not cut, as in exported files


def with_least_ir(model: onnx.ModelProto) -> onnx.ModelProto:
    """Sets the lowest IR version that the operator sets of `model` allow; returns `model`.

    Libraries that write ONNX set their own, newer IR version. Older runtimes refuse such files,
    even if they support all the operators.
    """
    opsets = list(model.opset_import)
    model.ir_version = helper.find_min_ir_version_for(opsets, ignore_unknown=True)
    return model


@dataclass
class GraphBuilder:
    """Nodes and initializers of an ONNX graph under construction.

    Methods that add a node return the name of its output.
    """

    seed: int
    act_first: bool = False
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = rng(self.seed, "onnx_build")
        self.flat: set[str] = set()  # values of shape [batch, channels]

    def model(self, input_shape: list[int | str], output_shape: list[int | str]) -> onnx.ModelProto:
        """The whole model; the last node computes its output."""
        self.nodes[-1].output[0] = OUTPUT
        graph = helper.make_graph(
            self.nodes,
            "hwnas",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, input_shape)],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, output_shape)],
            list(self.initializers.values()),
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, producer_name="hwnas", opset_imports=opsets)
        return with_least_ir(model)

    def add(self, op: OpSpec, value: str, name: str, *, feeds_linear: bool) -> str:
        """Adds an operator that reads one value.

        feeds_linear: whether a linear layer reads the output; a mean is then a vector, not a map.
        """
        if op.kind == "pool":
            mean = self._mean(value, name, keepdims=not feeds_linear)
            if feeds_linear:
                self.flat.add(mean)
            return mean
        if op.kind == "linear":
            return self._linear(layers(op)[0], value, f"{name}.linear")
        if op.kind in ("avg_pool", "max_pool"):
            kind = {"avg_pool": "AveragePool", "max_pool": "MaxPool"}[op.kind]
            return self._window(kind, value, name, op.kernel, op.stride, op.padding)
        if op.kind == "concat":
            return self.concat([value], name)
        if op.kind == "cut":
            return self._slice(value, name, 1, 0, op.out_channels)
        if op.kind == "factorized":
            return self._factorized(op, value, name)
        if op.kind == "norm":
            return self._activation(op.act, self._norm(op, value, name), name)
        if op.kind == "identity":
            return self._node("Identity", [value], name)
        return self._block(op, value, name)

    def sum(self, terms: list[str], name: str) -> str:
        """Adds the sum of two values."""
        return self._node("Add", terms, name)

    def concat(self, parts: list[str], name: str) -> str:
        """Concatenates values along their channels."""
        return self._node("Concat", parts, name, axis=1)

    def zeros(self, op: OpSpec, name: str) -> str:
        """Adds zeros [batch, C, px, px], made from the image, for an operator without input."""
        axes = self._constant(f"{name}.zeros.axes", np.array([1, 2, 3], dtype=np.int64))
        mean = self._node("ReduceMean", [INPUT, axes], f"{name}.zeros.mean", keepdims=1)
        shape = (1, op.in_channels, op.in_hw, op.in_hw)
        none = self._constant(f"{name}.zeros.maps", np.zeros(shape, dtype=np.float32))
        return self._node("Mul", [mean, none], f"{name}.zeros")

    def _block(self, op: OpSpec, value: str, name: str) -> str:
        """An operator with weights: its layers in order, then the residual connection."""
        is_first = op.kind in ACT_FIRST or (op.kind == "conv" and self.act_first)
        main = [layer for layer in layers(op) if layer.name != "conv_shortcut"]
        out, gated = value, ""
        for layer in main:
            path = f"{name}.{layer.name}"
            if layer.name == "se.conv_reduce":
                gated, out = out, self._mean(out, f"{name}.se.mean")
            if is_first:
                out = self._conv(layer, self._activation(layer.act, out, path), path)
            else:
                out = self._activation(layer.act, self._conv(layer, out, path), path)
            if layer.name == "se.conv_expand":
                out = self._node("Mul", [gated, out], f"{name}.se.gate")
            if layer.shuffles:
                out = self._shuffle(layer, out, f"{name}.shuffle")
        if op.skip:
            out = self._node("Add", [out, self._shortcut(op, value, name)], f"{name}.skip")
        return self._activation(op.out_act, out, f"{name}.out")

    def _shortcut(self, op: OpSpec, value: str, name: str) -> str:
        """The input of the block, converted to the shape of its output."""
        if op.pools_shortcut:
            name_of_pool = f"{name}.pool_shortcut"
            value = self._window("AveragePool", value, name_of_pool, op.stride, op.stride)
        if op.has_projection:
            value = self._conv(layers(op)[-1], value, f"{name}.conv_shortcut")
        return value

    def _window(
        self, kind: str, value: str, path: str, kernel: int, stride: int, padding: int = 0
    ) -> str:
        """Means or maxima without padded pixels. Without padding, incomplete windows count too."""
        sizes: dict[str, object] = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2}
        sizes |= {"pads": [padding] * 4} if padding else {}
        sizes |= {"ceil_mode": 1} if stride > 1 and not padding else {}
        return self._node(kind, [value], path, **sizes)

    def _factorized(self, op: OpSpec, value: str, name: str) -> str:
        """Both convolutions read one activation, the second one from pixel (1, 1) on."""
        first, second = layers(op)
        value = self._activation(op.act, value, name)
        parts = [self._conv(first, value, f"{name}.{first.name}")]
        for axis, edge in ((2, "rows"), (3, "columns")):
            value = self._slice(value, f"{name}.{edge}", axis, 1, ALL)
        return self.concat([*parts, self._conv(second, value, f"{name}.{second.name}")], name)

    def _slice(self, value: str, name: str, axis: int, start: int, end: int) -> str:
        bounds = {"starts": start, "ends": end, "axes": axis, "steps": 1}
        parts = [
            self._constant(f"{name}.{part}", np.array([number], dtype=np.int64))
            for part, number in bounds.items()
        ]
        return self._node("Slice", [value, *parts], name)

    def _norm(self, op: OpSpec, value: str, name: str) -> str:
        """BN that cannot be folded into a convolution before it."""
        small = [0.1 * self.rng.standard_normal(op.out_channels, dtype=np.float32) for _ in "123"]
        parts = {"scale": 1 + small[0], "bias": small[1], "mean": small[2]}
        parts["var"] = np.ones_like(small[0])
        constants = [
            self._constant(f"{name}.{part}", array.astype(np.float32))
            for part, array in parts.items()
        ]
        return self._node("BatchNormalization", [value, *constants], name, epsilon=BN_EPS)

    def _shuffle(self, layer: Layer, value: str, path: str) -> str:
        """Distributes the channels of every group over all groups."""
        channels, groups, maps = layer.out_channels, layer.groups, [layer.out_hw, layer.out_hw]
        apart = np.array([0, groups, channels // groups, *maps], dtype=np.int64)
        joined = np.array([0, channels, *maps], dtype=np.int64)
        value = self._node("Reshape", [value, self._constant(f"{path}.apart", apart)], f"{path}.in")
        value = self._node("Transpose", [value], path, perm=[0, 2, 1, 3, 4])
        shape = self._constant(f"{path}.joined", joined)
        return self._node("Reshape", [value, shape], f"{path}.out")

    def _conv(self, layer: Layer, value: str, path: str) -> str:
        per_group = layer.in_channels // layer.groups
        inputs = [value, *self._weights(path, layer, (per_group, layer.kernel, layer.kernel))]
        sizes: dict[str, object] = {
            "kernel_shape": [layer.kernel] * 2,
            "strides": [layer.stride] * 2,
            "pads": [layer.padding] * 2 + [layer.padding + layer.pad_more] * 2,
            "group": layer.groups,
        }
        sizes |= {"dilations": [layer.dilation] * 2} if layer.dilation > 1 else {}
        return self._node("Conv", inputs, path, **sizes)

    def _linear(self, layer: Layer, value: str, path: str) -> str:
        if value not in self.flat:
            sizes = np.array([0, layer.in_channels], dtype=np.int64)
            inputs = [value, self._constant(f"{path}.shape", sizes)]
            value = self._node("Reshape", inputs, f"{path}.flatten")
        weights = self._weights(path, layer, (layer.in_channels,))
        return self._node("Gemm", [value, *weights], path, transB=1)

    def _mean(self, value: str, path: str, *, keepdims: bool = True) -> str:
        axes = self._constant("spatial_axes", np.array([2, 3], dtype=np.int64))
        return self._node("ReduceMean", [value, axes], path, keepdims=int(keepdims))

    def _activation(self, act: str, value: str, path: str) -> str:
        path = f"{path}.act"
        if act == "none":
            return value
        if act == "relu":
            return self._node("Relu", [value], path)
        if act == "relu6":
            bounds = [
                self._constant(name, np.array(bound, dtype=np.float32))
                for name, bound in (("zero", 0), ("six", 6))
            ]
            return self._node("Clip", [value, *bounds], path)
        if act == "hard_swish":
            return self._node("HardSwish", [value], path)
        if act == "hard_sigmoid":
            return self._node("HardSigmoid", [value], path, alpha=1 / 6, beta=0.5)
        if act == "sigmoid":
            return self._node("Sigmoid", [value], path)
        if act == "swish":
            gate = self._node("Sigmoid", [value], f"{path}.sigmoid")
            return self._node("Mul", [value, gate], path)
        # unreachable for the activations of `ops.Act`; a new one must also be added here
        raise NotImplementedError(f"no ONNX form of the activation {act!r}")

    def _weights(self, path: str, layer: Layer, shape: tuple[int, ...]) -> list[str]:
        """He-scaled weights [out, *shape] and, with BN or a bias, a small bias."""
        weight = self.rng.standard_normal((layer.out_channels, *shape), dtype=np.float32)
        weight *= np.float32(np.sqrt(2 / np.prod(shape)))
        found = [self._constant(f"{path}.weight", weight)]
        if layer.has_bn or layer.has_bias:
            bias = 0.1 * self.rng.standard_normal(layer.out_channels, dtype=np.float32)
            found.append(self._constant(f"{path}.bias", bias))
        return found

    def _constant(self, name: str, value: NDArray[np.float32] | NDArray[np.int64]) -> str:
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(value, name)
        return name

    def _node(self, kind: str, inputs: list[str], name: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name
