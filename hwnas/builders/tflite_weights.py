"""Converts ONNX nodes with weights to LiteRT operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hwnas.builders.tflite_nodes import Nodes, Window, attributes, padding_name, row_parts, unknown

__all__ = ["WeightedNodes"]


class WeightedNodes(Nodes):
    """Converts convolutions, BN and linear layers."""

    def conv(self, node: onnx.NodeProto) -> None:
        """Converts a convolution: dense, grouped or depthwise, with the padding of torch."""
        facts = attributes(node)
        weight = self.constant(node, 1)
        n_out, per_group, kernel = weight.shape[0], weight.shape[1], weight.shape[2]
        groups, strides = facts.get("group", 1), facts.get("strides", [1, 1])
        read = self.value(node, 0)
        batch, height, width, channels = self.shape(read)
        pad, left, bottom, right = facts.get("pads", [0] * 4)
        is_square = (pad, bottom) == (left, right) and bottom >= pad
        if len({*weight.shape[2:]}) > 1 or not is_square or len({*strides}) > 1:
            raise unknown(node, "a convolution whose kernel, stride or padding is not square")
        dilation, *others = facts.get("dilations", [1, 1])
        if others != [dilation] or facts.get("auto_pad", b"") not in (b"", b"NOTSET"):
            raise unknown(node, "a convolution with two dilations, or with automatic padding")
        stride, more = strides[0], bottom - pad
        is_depthwise = per_group == 1 and groups == channels
        order = (1, 2, 3, 0) if is_depthwise else (0, 2, 3, 1)
        weight = np.ascontiguousarray(weight.transpose(order))
        bias = self.constant(node, 2) if len(node.input) > 2 else np.zeros(n_out, np.float32)
        reach = dilation * (kernel - 1) + 1
        sides = ((size + pad + bottom - reach) // stride + 1 for size in (height, width))
        window = Window((batch, *sides, n_out), stride, n_out // channels if is_depthwise else None)
        rows = row_parts(kernel) if is_depthwise and dilation == 1 else [range(kernel)]
        if len(rows) == 1 or pad < rows[0][0]:
            padding = padding_name((height, width), reach, stride, pad, more)
            if not padding:
                read, padding = self._pad(node, read, pad, pad, more=more), "VALID"
            dilations = (dilation, dilation)
            self._window(
                node, window, weight, bias, read=read, padding=padding, dilations=dilations
            )
        else:
            self._window_by_rows(node, window, weight, bias, rows, read, (pad, more))

    def _window_by_rows(
        self,
        node: onnx.NodeProto,
        window: Window,
        weight: NDArray[Any],
        bias: NDArray[Any],
        parts: Sequence[range],
        read: str,
        pads: tuple[int, int],
    ) -> None:
        """A depthwise convolution [1, k, k, C] as a sum of convolutions with some of its rows.

        pads: pixels on every side, and further pixels at the bottom and on the right.
        """
        (pad, more), total = pads, ""
        for number, rows in enumerate(parts):
            name = f"{node.output[0]}.rows{rows[0]}"
            self._window(
                node,
                window,
                np.ascontiguousarray(weight[:, rows]),
                np.zeros_like(bias) if number else bias,
                read=self._pad(node, read, pad - rows[0], pad, name, more=more),
                padding="VALID",
                dilations=(rows.step, 1),
                name=name,
            )
            is_last = number == len(parts) - 1
            summed = node.output[0] if is_last else f"{name}.sum"
            total = self.emit("ADD", node, name, read=total, name=summed) if number else name

    def _window(
        self,
        node: onnx.NodeProto,
        window: Window,
        weight: NDArray[Any],
        bias: NDArray[Any],
        *,
        read: str,
        padding: str,
        dilations: tuple[int, int] = (1, 1),
        name: str = "",
    ) -> None:
        """One convolution; `dilations`: of its rows and of its columns."""
        name = name or node.output[0]
        options: dict[str, Any] = {}
        if window.multiplier is not None:
            options["depthMultiplier"] = window.multiplier
        self.emit(
            "CONV_2D" if window.multiplier is None else "DEPTHWISE_CONV_2D",
            node,
            self.graph.constant(f"{name}.weight", weight),
            self.graph.constant(f"{name}.bias", bias),
            shape=window.shape,
            read=read,
            name=name,
            padding=padding,
            strideW=window.stride,
            strideH=window.stride,
            dilationWFactor=dilations[1],
            dilationHFactor=dilations[0],
            **options,
        )

    def _pad(
        self,
        node: onnx.NodeProto,
        read: str,
        pad: int,
        across: int,
        name: str = "",
        *,
        more: int = 0,
    ) -> str:
        """Pads value `name` by `pad` rows above and below, and `across` columns on both sides.

        more: further rows below and columns on the right.
        """
        batch, height, width, channels = self.shape(read)
        ends = (0, 0), (pad, pad + more), (across, across + more), (0, 0)
        return self.emit(
            "PAD",
            node,
            self.graph.constant(f"pad.{pad}.{across}.{more}", np.array(ends, dtype=np.int32)),
            shape=(batch, height + 2 * pad + more, width + 2 * across + more, channels),
            read=read,
            name=f"{name or node.output[0]}.padded",
        )

    def norm(self, node: onnx.NodeProto) -> None:
        """Converts a BN that is not folded into a convolution, to a depthwise 1x1 convolution."""
        if len(self.shape(self.value(node, 0))) != 4:
            raise unknown(node, "BatchNormalization of values that are not maps")
        scale, bias, mean, var = (self.constant(node, i) for i in range(1, 5))
        factor = scale / np.sqrt(var + np.float32(attributes(node).get("epsilon", 1e-5)))
        weight = factor.astype(np.float32).reshape(1, 1, 1, -1)
        self.emit(
            "DEPTHWISE_CONV_2D",
            node,
            self.graph.constant(f"{node.output[0]}.weight", weight),
            self.graph.constant(f"{node.output[0]}.bias", (bias - mean * factor).astype("f4")),
            padding="VALID",
            strideW=1,
            strideH=1,
            depthMultiplier=1,
            dilationWFactor=1,
            dilationHFactor=1,
        )

    def gemm(self, node: onnx.NodeProto) -> None:
        """Converts a linear layer."""
        facts = attributes(node)
        weight = self.constant(node, 1)
        weight = weight if facts.get("transB") else weight.T
        if facts.get("transA") or (facts.get("alpha", 1.0), facts.get("beta", 1.0)) != (1.0, 1.0):
            raise unknown(node, "a scaled or transposed Gemm")
        n_out = len(weight)
        bias = self.constant(node, 2) if len(node.input) > 2 else np.zeros(n_out, np.float32)
        self.emit(
            "FULLY_CONNECTED",
            node,
            self.graph.constant(f"{node.output[0]}.weight", np.ascontiguousarray(weight)),
            self.graph.constant(f"{node.output[0]}.bias", bias),
            shape=(self.shape(self.value(node, 0))[0], n_out),
        )
