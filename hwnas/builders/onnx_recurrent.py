"""ONNX nodes of recurrent cells: one step from a token and the state to logits and next state."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from hwnas.builders.onnx_nodes import GraphBuilder
from hwnas.spaces.network import Network
from hwnas.spaces.ops import Layer, OpSpec, layers

__all__ = ["NEXT_STATE", "STATE", "TOKEN", "RecurrentBuilder", "is_recurrent"]

TOKEN, STATE, NEXT_STATE = "token", "state", "next_state"
KINDS = ("embed", "join", "highway", "fold")
N_WORDS = 1024  # rows of an embedding without its classifier; a step reads one of them


def is_recurrent(net: Network) -> bool:
    """Whether a network has operators of recurrent cells."""
    return any(op.kind in KINDS for op in net.ops)


class RecurrentBuilder(GraphBuilder):
    """Adds operators that read and write vectors [batch, channels].

    n_words: rows of the embedding. The timed graph has its own copy of these rows, which does not
    change the time of a step. In deployed files, embedding and classifier share their weights.
    """

    def __init__(self, seed: int, net: Network) -> None:
        super().__init__(seed)
        last = net.ops[-1]
        self.n_words = last.out_channels if last.kind == "linear" else N_WORDS
        self.reads_token = net.ops[0].kind == "embed"
        self.width = 0  # width of the state that is read
        self.next_width = 0  # width of the state that is written

    def add(self, op: OpSpec, value: str, name: str, *, feeds_linear: bool) -> str:
        """See `GraphBuilder.add`."""
        if op.kind not in KINDS:
            return super().add(op, value, name, feeds_linear=feeds_linear)
        if op.kind == "embed":
            rows = 0.1 * self.rng.standard_normal((self.n_words, op.out_channels))
            words = self._constant(f"{name}.words", rows.astype(np.float32))
            found = self._node("Gather", [words, TOKEN], name, axis=0)
        elif op.kind == "join":
            self.width = op.out_channels
            both = self.concat([self._vector(value, op.in_channels, name), STATE], f"{name}.both")
            found = self._highway(op, both, STATE, name)
        elif op.kind == "highway":
            value = self._vector(value, op.in_channels, name)
            found = self._highway(op, value, value, name)
        else:
            found = self._fold(op, self._vector(value, op.in_channels, name), name)
        self.flat.add(found)
        return found

    def concat(self, parts: list[str], name: str) -> str:
        """Concatenates values along their channels; vectors stay vectors."""
        found = super().concat(parts, name)
        if self.flat.issuperset(part for part in parts if part != STATE):
            self.flat.add(found)
        return found

    def model(self, input_shape: list[int | str], output_shape: list[int | str]) -> onnx.ModelProto:
        """The whole model, as in `GraphBuilder.model`, but for one step of a recurrent network.

        A token replaces the image if the network reads tokens. The state is a further input, and
        the next state a further output.
        """
        model = super().model(input_shape, output_shape)
        axis, graph = input_shape[0], model.graph
        if self.reads_token:
            del graph.input[:]
            graph.input.append(helper.make_tensor_value_info(TOKEN, TensorProto.INT64, [axis]))
        for values, name, width in (
            (graph.input, STATE, self.width),
            (graph.output, NEXT_STATE, self.next_width),
        ):
            if width:
                values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [axis, width]))
        return model

    def _highway(self, op: OpSpec, value: str, before: str, name: str) -> str:
        """before + sigmoid(c) * (act(h) - before), with [c, h] = W value."""
        (layer,) = layers(op)
        weights = self._weights(name, layer, (layer.in_channels,))
        product = self._node("Gemm", [value, *weights], f"{name}.product", transB=1)
        halves = [f"{name}.gate", f"{name}.value"]
        self.nodes.append(
            helper.make_node(
                "Split", [product], halves, name=f"{name}.split", axis=1, num_outputs=2
            )
        )
        gate = self._node("Sigmoid", halves[:1], f"{name}.sigmoid")
        change = self._node(
            "Sub", [self._activation(op.act, halves[1], name), before], f"{name}.sub"
        )
        scaled = self._node("Mul", [gate, change], f"{name}.mul")
        return self._node("Add", [before, scaled], name)

    def _fold(self, op: OpSpec, value: str, name: str) -> str:
        """The mean of blocks of channels, which is the next state."""
        self.next_width = op.out_channels
        n_blocks = op.in_channels // op.out_channels
        sizes = np.array([0, n_blocks, op.out_channels], dtype=np.int64)
        shape = self._constant(f"{name}.sizes", sizes)
        blocks = self._node("Reshape", [value, shape], f"{name}.blocks")
        axes = self._constant(f"{name}.axes", np.array([1], dtype=np.int64))
        return self._node("ReduceMean", [blocks, axes], NEXT_STATE, keepdims=0)

    def _vector(self, value: str, channels: int, name: str) -> str:
        """The value without its map of one pixel."""
        if value in self.flat:
            return value
        shape = self._constant(f"{name}.flat", np.array([0, channels], dtype=np.int64))
        return self._node("Reshape", [value, shape], f"{name}.flatten")

    def _conv(self, layer: Layer, value: str, path: str) -> str:
        """Neighbours of micro-nets read maps of one pixel."""
        if value in self.flat:
            sizes = np.array([0, layer.in_channels, 1, 1], dtype=np.int64)
            shape = self._constant(f"{path}.map", sizes)
            value = self._node("Reshape", [value, shape], f"{path}.unflatten")
        return super()._conv(layer, value, path)

    def _activation(self, act: str, value: str, path: str) -> str:
        if act == "tanh":
            return self._node("Tanh", [value], f"{path}.act")
        return super()._activation(act, value, path)
