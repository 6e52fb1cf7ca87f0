"""Converts ONNX graphs of hwnas to `.tflite` for LiteRT, without torch or TensorFlow.

One converter is used for timed graphs (from `builders.onnx`) and for deployed graphs (from the
exporters), so their operators are the same. Layouts become NHWC, activations are fused into the
previous operator, and padding uses TensorFlow's modes if they are equivalent. `tflite_precision`
converts precisions.
"""

from __future__ import annotations

from typing import Literal

import onnx

from hwnas.builders import onnx as onnx_builder
from hwnas.builders.tflite_convert import Converter
from hwnas.builders.tflite_graph import Graph
from hwnas.builders.tflite_nodes import UnsupportedNodes
from hwnas.builders.tflite_precision import to_precision
from hwnas.core.errors import UserError
from hwnas.spaces.network import Network

__all__ = ["Precision", "UnsupportedNodes", "converted", "network", "timed"]

Precision = Literal["fp32", "fp16", "int8"]


def network(
    net: Network, *, batch: int | None = 1, seed: int = 0, precision: Precision = "fp32"
) -> bytes:
    """A whole network: `input` [batch, px, px, C] -> `logits` [batch, classes], random weights.

    `batch=None` gives an open batch axis. Equal arguments give equal bytes.
    """
    return timed(onnx_builder.network(net, batch=batch, seed=seed), precision)


def timed(model: onnx.ModelProto, precision: Precision = "fp32") -> bytes:
    """Converts a graph of `builders.onnx` to a file for timing; 8-bit ranges are synthetic.

    Raises:
        UserError: the package of LiteRT is not installed.
    """
    return to_precision(converted(model), precision).serialized()


def converted(model: onnx.ModelProto) -> Graph:
    """Converts an fp32 ONNX graph with `input` [B, C, H, W] to operators of LiteRT, in fp32.

    Raises:
        UserError: LiteRT has no counterpart of an operator of the graph, which the error names
            (`UnsupportedNodes`).
    """
    if len(model.graph.input) > 1:
        raise UserError(
            "LiteRT files of recurrent networks are not supported yet",
            expected="a graph with one input",
            found=f"inputs: {', '.join(value.name for value in model.graph.input)}",
            fix="use a device with the runtime onnxruntime",
        )
    return Converter(model).run()
