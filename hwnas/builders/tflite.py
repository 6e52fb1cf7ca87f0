"""Converts ONNX graphs of hwnas to `.tflite` for LiteRT, without torch or TensorFlow.

One converter serves both what is timed (the graphs of `builders.onnx`) and what ships (those of the
exporters), so that the operators are the same. Layouts become NHWC, activations are fused into the
operator before them, and padding is TensorFlow's where that is the same. Precisions: see
`tflite_precision`.
"""

from __future__ import annotations

from typing import Literal

import onnx

from hwnas.builders import onnx as onnx_builder
from hwnas.builders.tflite_convert import Converter
from hwnas.builders.tflite_graph import Graph
from hwnas.builders.tflite_precision import to_precision
from hwnas.spaces.network import Network

__all__ = ["Precision", "converted", "network", "timed"]

Precision = Literal["fp32", "fp16", "int8"]


def network(
    net: Network, *, batch: int | None = 1, seed: int = 0, precision: Precision = "fp32"
) -> bytes:
    """A whole network: `input` [batch, px, px, C] -> `logits` [batch, classes], random weights.

    `batch=None` leaves the batch open. Equal arguments give equal bytes.
    """
    return timed(onnx_builder.network(net, batch=batch, seed=seed), precision)


def timed(model: onnx.ModelProto, precision: Precision = "fp32") -> bytes:
    """A graph of `builders.onnx` as a file that is timed; ranges of 8 bits are made up.

    Raises:
        UserError: LiteRT's package is not installed.
    """
    return to_precision(converted(model), precision).serialized()


def converted(model: onnx.ModelProto) -> Graph:
    """An fp32 ONNX graph with `input` [B, C, H, W] as operators of LiteRT, in fp32.

    Raises:
        UserError: an operator of the graph has no counterpart; names it.
    """
    return Converter(model).run()
