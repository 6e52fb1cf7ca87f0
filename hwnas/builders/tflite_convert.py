"""Converts each kind of ONNX node in the graphs of hwnas to LiteRT operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx

from hwnas.builders.tflite_graph import Graph
from hwnas.builders.tflite_nodes import (
    CHANNELS_LAST,
    OPERATORS,
    attributes,
    n_pixels,
    padding_name,
    unknown,
)
from hwnas.builders.tflite_weights import WeightedNodes

__all__ = ["Converter"]

FUSING = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "MUL")
"""Operators that can apply a ReLU themselves."""
AROUND = ("Cast", "Constant", "Expand", "Gather", "Shape", "Squeeze", "Unsqueeze")
"""Operators that torch adds around others, such as DFT. Errors name them last."""


class Converter(WeightedNodes):
    """Converts a model node by node."""

    def run(self) -> Graph:
        """Converts the whole model.

        Raises:
            UserError: LiteRT has no counterpart of some operators, which the error names.
        """
        convert: Mapping[str, Callable[[onnx.NodeProto], object]] = {
            "Conv": self.conv,
            "Gemm": self.gemm,
            "Add": lambda node: self._binary("ADD", node),
            "Mul": lambda node: self._binary("MUL", node),
            "Relu": lambda node: self._activation(node, "RELU"),
            "Clip": self._clip,
            "HardSwish": lambda node: self.emit("HARD_SWISH", node),
            "Sigmoid": lambda node: self.emit("LOGISTIC", node),
            "HardSigmoid": self._hard_sigmoid,
            "ReduceMean": self._mean,
            "AveragePool": lambda node: self._pool(node, "AVERAGE_POOL_2D"),
            "MaxPool": lambda node: self._pool(node, "MAX_POOL_2D"),
            "BatchNormalization": self.norm,
            "Concat": self._concat,
            "Slice": self._slice,
            "Reshape": self._reshape,
            "Transpose": self._transpose,
            "Identity": lambda node: self.rename(node.output[0], self.value(node, 0)),
        }
        if missing := [node for node in self.nodes if node.op_type not in OPERATORS]:
            missing.sort(key=lambda node: node.op_type in AROUND)
            kinds = list(dict.fromkeys(node.op_type for node in missing))
            what = f"the operator{'s' * (len(kinds) > 1)} {', '.join(kinds)}"
            raise unknown(missing[0], what, *missing[1:])
        for node in self.nodes:
            convert[node.op_type](node)
        self.graph.output = self.alias.get(self.output, self.output)
        return self.graph

    def _binary(self, kind: str, node: onnx.NodeProto) -> None:
        names = []
        for position, given in enumerate(node.input):
            if given in self.constants:
                value = np.asarray(self.constants[given], dtype=np.float32)
                if value.ndim not in (0, 4):
                    raise unknown(node, f"{node.op_type} with a constant of {value.ndim} axes")
                value = value.transpose(CHANNELS_LAST[4]) if value.ndim else value
                names.append(self.graph.constant(given, np.ascontiguousarray(value)))
            else:
                names.append(self.value(node, position))
        names.sort(key=self.graph.is_constant)  # the constant comes second
        if len({len(self.shape(name)) for name in names if self.shape(name)}) > 1:
            raise unknown(node, f"{node.op_type} of values with different numbers of axes")
        shape = np.broadcast_shapes(*(self.shape(name) for name in names))
        self.emit(kind, node, names[1], shape=shape, read=names[0])

    def _clip(self, node: onnx.NodeProto) -> None:
        bounds = [
            float(self.constant(node, position)) if name else None
            for position, name in zip((1, 2), [*node.input[1:], "", ""], strict=False)
        ]
        if bounds not in ([0.0, 6.0], [0.0, None]):
            raise unknown(node, f"Clip to {bounds}")
        self._activation(node, "RELU6" if bounds[1] else "RELU")

    def _activation(self, node: onnx.NodeProto, kind: str) -> None:
        """Fuses the activation into the previous operator, if nothing else reads its output."""
        read = self.value(node, 0)
        if self.is_fusible(read, FUSING):
            self.fuse(kind)
            self.rename(node.output[0], read)
        else:
            self.emit(kind, node)

    def _hard_sigmoid(self, node: onnx.NodeProto) -> None:
        """ReLU6(x + 3) / 6; the 3 is added to a bias if there is one."""
        facts = attributes(node)
        if abs(facts.get("alpha", 0.2) - 1 / 6) > 1e-6 or facts.get("beta", 0.5) != 0.5:
            raise unknown(node, "HardSigmoid other than clip(x / 6 + 0.5, 0, 1)")
        read = self.value(node, 0)
        if self.is_fusible(read, ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")):
            bias = self.graph.tensors[self.graph.ops[-1].inputs[2]]
            assert bias.data is not None
            self.graph.constant(bias.name, bias.data + np.float32(3))
            self.fuse("RELU6")
        else:
            three = self.graph.constant("three", np.array(3, dtype=np.float32))
            name = f"{node.output[0]}.shifted"
            read = self.emit("ADD", node, three, name=name)
            self.fuse("RELU6")
        sixth = self.graph.constant("sixth", np.array(1 / 6, dtype=np.float32))
        self.emit("MUL", node, sixth, read=read)

    def _mean(self, node: onnx.NodeProto) -> None:
        facts = attributes(node)
        axes = sorted(self.constant(node, 1).tolist()) if len(node.input) > 1 else None
        shape = self.shape(self.value(node, 0))
        if axes not in ([2, 3], [-2, -1], [1, 2, 3]) or len(shape) != 4:
            raise unknown(node, f"ReduceMean over {axes}")
        is_full = len(axes) == 3
        keeps = bool(facts.get("keepdims", 1))
        where = np.array([1, 2, 3] if is_full else [1, 2], dtype=np.int32)
        rest = (1, 1, 1 if is_full else shape[3]) if keeps else (() if is_full else shape[3:])
        name = self.graph.constant("axes.all" if is_full else "axes", where)
        self.emit("MEAN", node, name, shape=(shape[0], *rest), keepDims=keeps)

    def _pool(self, node: onnx.NodeProto, kind: str) -> None:
        """Means or maxima of windows, with more operators if TensorFlow cannot pad like torch."""
        facts, read = attributes(node), self.value(node, 0)
        (kernel, *_), (stride, *_) = facts["kernel_shape"], facts.get("strides", [1, 1])
        sizes = [facts["kernel_shape"], *(facts.get(name, [0]) for name in ("strides", "pads"))]
        if any(len({*given}) > 1 for given in sizes):
            raise unknown(node, f"{node.op_type} whose kernel, stride or padding is not square")
        pad, dilation = facts.get("pads", [0] * 4)[0], max(facts.get("dilations", [1]))
        if dilation > 1 or (pad and (facts.get("count_include_pad") or 2 * pad > kernel)):
            raise unknown(node, f"{node.op_type} with the attributes {facts}")
        batch, *size, channels = self.shape(read)
        is_even = not pad and stride == kernel and all(-side % stride < 2 for side in size)
        if facts.get("ceil_mode") and is_even:  # else TensorFlow pads before the first window, too
            padding, sides = "SAME", [-(-side // stride) for side in size]
        elif facts.get("ceil_mode") and any((side + 2 * pad - kernel) % stride for side in size):
            raise unknown(node, f"{node.op_type} with a last window that is not whole")
        else:
            padding = padding_name(size, kernel, stride, pad)
            sides = [(side + 2 * pad - kernel) // stride + 1 for side in size]
        is_mean, is_padded = kind == "AVERAGE_POOL_2D", not padding
        if is_padded:
            has_zeros = is_mean or self._is_clamped(read)
            read = self._pad(node, read, pad, pad) if has_zeros else self._widened(node, read, pad)
            padding = "VALID"
        name = self.emit(
            kind,
            node,
            read=read,
            shape=(batch, *sides, channels),
            name=f"{node.output[0]}.sums" if is_mean and is_padded else "",
            padding=padding,
            strideW=stride,
            strideH=stride,
            filterWidth=kernel,
            filterHeight=kernel,
        )
        if is_mean and is_padded:
            down, right = (n_pixels(side, kernel, stride, pad) for side in size)
            factors = np.float32(kernel**2) / np.outer(down, right).astype(np.float32)
            constant = self.graph.constant(f"{name}.factors", factors[None, :, :, None])
            self.emit("MUL", node, constant, read=name)

    def _widened(self, node: onnx.NodeProto, read: str, pad: int) -> str:
        """Repeats the pixels at the edges `pad` times, which changes no maximum of a window."""
        for axis in (1, 2):
            shape = list(self.shape(read))
            last = shape[axis] - 1
            first, end = (
                self._part(node, read, axis, at, at + 1, f"{node.output[0]}.{axis}.{at}")
                for at in (0, last)
            )
            parts = [first] * pad + [read] + [end] * pad
            shape[axis] += 2 * pad
            name = f"{node.output[0]}.{axis}.widened"
            read = self.emit(
                "CONCATENATION",
                node,
                *parts[1:],
                shape=tuple(shape),
                read=parts[0],
                name=name,
                axis=axis,
            )
        return read

    def _concat(self, node: onnx.NodeProto) -> None:
        parts = [self.value(node, position) for position in range(len(node.input))]
        shapes = [self.shape(part) for part in parts]
        if attributes(node)["axis"] != 1 or len(shapes[0]) != 4:
            raise unknown(node, "a Concat that does not join the channels of maps")
        shape = (*shapes[0][:3], sum(channels for *_, channels in shapes))
        self.emit("CONCATENATION", node, *parts[1:], shape=shape, read=parts[0], axis=3)

    def _slice(self, node: onnx.NodeProto) -> None:
        """A range of rows, columns or channels."""
        bounds = [self.constant(node, position) for position in range(1, len(node.input))]
        read = self.value(node, 0)
        if (
            len(bounds) != 4
            or any(bound.size != 1 for bound in bounds)
            or len(self.shape(read)) != 4
        ):
            raise unknown(node, "a Slice of several axes, or of a value that is not a map")
        start, end, given, step = (int(bound.item()) for bound in bounds)
        if step != 1 or start < 0 or end < 0 or given % 4 == 0:
            raise unknown(node, f"a Slice from {start} to {end} of axis {given}, step {step}")
        self._part(node, read, CHANNELS_LAST[4].index(given % 4), start, end)

    def _part(
        self, node: onnx.NodeProto, read: str, axis: int, start: int, end: int, name: str = ""
    ) -> str:
        """The range `start` to `end` of an axis of a value."""
        shape = list(self.shape(read))
        begin, until = np.zeros(4, np.int32), np.array(shape, dtype=np.int32)
        begin[axis], until[axis] = start, min(end, shape[axis])
        shape[axis] = int(until[axis]) - start
        given = {"begin": begin, "end": until, "strides": np.ones(4, np.int32)}
        stem = name or node.output[0]
        more = [self.graph.constant(f"{stem}.{key}", value) for key, value in given.items()]
        return self.emit(
            "STRIDED_SLICE", node, *more, shape=tuple(shape), read=read, name=name, endMask=1
        )

    def _is_clamped(self, read: str) -> bool:
        """Whether a value is the output of a ReLU."""
        return any(
            op.output == read and ("RELU" in op.kind or "RELU" in op.fused) for op in self.graph.ops
        )

    def _reshape(self, node: onnx.NodeProto) -> None:
        """Converts maps of 1 px to vectors, and channels to [groups, channels each] and back."""
        given = self.constant(node, 1).tolist()
        shape = self.shape(self.value(node, 0))
        batch, *maps = shape[:3]
        sizes = _sizes(given, (batch, *shape[3:], *maps))
        if len(shape) == 4 and maps == [1, 1] and sizes == [batch, shape[3]]:
            made: tuple[int, ...] = (batch, shape[3])
        elif (len(shape), len(sizes)) == (4, 5) and [sizes[0], *sizes[3:]] == [batch, *maps]:
            made = (*shape[:3], sizes[1], sizes[2])
        elif (len(shape), len(sizes)) == (5, 4) and [sizes[0], *sizes[2:]] == [batch, *maps]:
            made = (*shape[:3], sizes[1])
        else:
            raise unknown(node, f"Reshape of {(batch, *shape[3:], *maps)} to {given}")
        target = np.array([-1, *made[1:]], dtype=np.int32)
        name = self.graph.constant(f"{node.output[0]}.shape", target)
        self.emit("RESHAPE", node, name, shape=made, newShape=target.tolist())

    def _transpose(self, node: onnx.NodeProto) -> None:
        perm = attributes(node)["perm"]
        if len(perm) not in CHANNELS_LAST:
            raise unknown(node, f"Transpose of {len(perm)} axes")
        order = CHANNELS_LAST[len(perm)]
        moved = np.array([order.index(perm[axis]) for axis in order], dtype=np.int32)
        shape = self.shape(self.value(node, 0))
        name = self.graph.constant(f"{node.output[0]}.order", moved)
        self.emit("TRANSPOSE", node, name, shape=tuple(shape[axis] for axis in moved))


def _sizes(given: Sequence[int], before: Sequence[int]) -> list[int]:
    """The target sizes of a Reshape: 0 keeps a size, and -1 takes the rest."""
    sizes = [before[i] if size == 0 else size for i, size in enumerate(given)]
    rest = math.prod(before) // max(math.prod(size for size in sizes if size != -1), 1)
    return [rest if size == -1 else size for size in sizes]
