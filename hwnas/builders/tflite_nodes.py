"""Shared code for the conversion of ONNX nodes to LiteRT operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from hwnas.builders.tflite_graph import INPUT, Graph, Op, Tensor
from hwnas.core.errors import UserError

__all__ = [
    "CHANNELS_LAST",
    "MOST_TAPS",
    "OPERATORS",
    "Nodes",
    "UnsupportedNodes",
    "Window",
    "attributes",
    "n_pixels",
    "padding_name",
    "row_parts",
    "unknown",
]

CHANNELS_LAST = {2: [0, 1], 4: [0, 2, 3, 1], 5: [0, 3, 4, 1, 2]}  # 5: channels as [groups, each]

OPERATORS = (
    *("Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "Gemm", "HardSigmoid"),
    *("HardSwish", "Identity", "MaxPool", "Mul", "ReduceMean", "Relu", "Reshape", "Sigmoid"),
    *("Slice", "Transpose"),
)
"""The ONNX operators that have a counterpart in LiteRT."""

MOST_TAPS = 25
"""Maximum kernel taps of a depthwise convolution.

XNNPACK has depthwise kernels of up to 3, 4, 9 and 25 taps. A larger window runs as a grouped
convolution with one channel per group, at 10 (fp32) to 50 (int8) times the time per tap.
"""


class Window(NamedTuple):
    """Output shape (channels last), stride and depth multiplier of a convolution.

    `multiplier` is None if the convolution is not depthwise.
    """

    shape: tuple[int, ...]
    stride: int
    multiplier: int | None


class Nodes:
    """The nodes of a model, and the graph built from them. Names of values stay the same."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.n_readers = Counter(name for node in self.nodes for name in node.input)
        self.alias: dict[str, str] = {}
        self.graph = Graph()
        (given,) = model.graph.input
        dims = given.type.tensor_type.shape.dim
        self.graph.is_open = not dims[0].HasField("dim_value")
        batch = 1 if self.graph.is_open else dims[0].dim_value
        _, channels, height, width = (dim.dim_value for dim in dims)
        self.alias[given.name] = INPUT
        self.graph.add(Tensor(INPUT, (batch, height, width, channels)))
        self.output = model.graph.output[0].name
        self.n_readers[self.output] += 1

    def value(self, node: onnx.NodeProto, position: int) -> str:
        """Name in the graph of a value that a node reads.

        Raises:
            UserError: the value is a constant.
        """
        name = str(node.input[position])
        if name in self.constants:
            raise unknown(node, f"the operator {node.op_type} of a constant")
        return self.alias.get(name, name)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a value, channels last."""
        return self.graph.tensors[name].shape

    def rename(self, name: str, value: str) -> None:
        """Replaces the node output `name` by `value` in all nodes that read it."""
        self.n_readers[value] += self.n_readers[name] - 1
        self.alias[name] = value

    def constant(self, node: onnx.NodeProto, position: int) -> NDArray[Any]:
        """The value of a constant input of a node.

        Raises:
            UserError: the input is computed.
        """
        name = node.input[position]
        if name not in self.constants:
            raise unknown(node, f"the operator {node.op_type} with computed weights")
        found: NDArray[Any] = self.constants[name]
        return found

    def emit(
        self,
        kind: str,
        node: onnx.NodeProto,
        *more: str,
        shape: tuple[int, ...] | None = None,
        read: str = "",
        name: str = "",
        **options: Any,
    ) -> str:
        """Adds an operator that reads `read` (default: the first input of the node) and `more`."""
        read = read or self.value(node, 0)
        output = name or node.output[0]
        self.graph.add(Tensor(output, self.shape(read) if shape is None else shape))
        self.graph.ops.append(Op(kind, (read, *more), output, options))
        return output

    def is_fusible(self, read: str, kinds: tuple[str, ...]) -> bool:
        """Whether the last operator computes `read`, and only the current node reads it."""
        before = self.graph.ops[-1] if self.graph.ops else None
        return (
            before is not None
            and before.output == read
            and before.kind in kinds
            and before.fused == "NONE"
            and self.n_readers[read] == 1
        )

    def fuse(self, kind: str) -> None:
        """Fuses an activation into the last operator."""
        before = self.graph.ops[-1]
        options = {**before.options, "fusedActivationFunction": kind}
        self.graph.ops[-1] = Op(before.kind, before.inputs, before.output, options)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Attributes of a node, by name."""
    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


def padding_name(size: Sequence[int], kernel: int, stride: int, pad: int, more: int = 0) -> str:
    """TensorFlow's name of a padding: `pad` pixels on all sides, `more` added at bottom and right.

    The name is empty if TensorFlow has no such padding.
    """
    if not pad and not more:
        return "VALID"
    for side in size:
        n_out = -(-side // stride)
        missing = max((n_out - 1) * stride + kernel - side, 0)
        n_made = (side + 2 * pad + more - kernel) // stride + 1
        if (missing // 2, missing % 2) != (pad, more) or n_made != n_out:
            return ""
    return "SAME"


def n_pixels(side: int, kernel: int, stride: int, pad: int) -> list[int]:
    """For each window along a side of a map, the number of its pixels that are not padding.

    pad: number of pixels of padding at each end of the side.
    """
    starts = range(-pad, side + pad - kernel + 1, stride)
    return [min(start + kernel, side) - max(start, 0) for start in starts]


def row_parts(kernel: int) -> list[range]:
    """Splits the rows of a depthwise window [k, k] into parts of at most `MOST_TAPS` taps.

    The first part is the middle row or rows. Further parts are pairs of rows at equal distance from
    the middle. Each part is evenly spaced, so it is a dilated window, and symmetric, so its padding
    is equal above and below. There is one part if all rows fit, or if no such split exists (k is
    even, or above 12).
    """
    middle, n_rows = kernel // 2, MOST_TAPS // kernel
    if n_rows >= kernel or n_rows < 2 or kernel % 2 == 0:
        return [range(kernel)]
    reach = (n_rows - 1) // 2
    parts = [range(middle - reach, middle + reach + 1)]
    return parts + [
        range(middle - far, middle + far + 1, 2 * far) for far in range(reach + 1, middle + 1)
    ]


class UnsupportedNodes(UserError):
    """LiteRT does not support some nodes; `nodes` are their outputs."""

    nodes: tuple[str, ...] = ()


def unknown(node: onnx.NodeProto, what: str, *others: onnx.NodeProto) -> UnsupportedNodes:
    """The error for a node that LiteRT does not support, and for other such nodes."""
    weights = [name.rpartition(".")[0] for name in node.input if "." in name]
    layer = f"layer {weights[0]}, " if weights else ""
    error = UnsupportedNodes(
        f"LiteRT or hwnas does not support {what}",
        expected=f"the ONNX operators {', '.join(OPERATORS)}, as the networks of hwnas use them",
        found=f"{node.op_type} of {', '.join(name for name in node.input if name)}",
        where=f"{layer}ONNX node {node.name or node.output[0]}",
        fix="replace the operator, or export the network in another format: onnx, ort and pt2"
        " support most operators; openvino, coreml and executorch support more than LiteRT",
    )
    error.nodes = tuple(str(one.output[0]) for one in (node, *others))
    return error
