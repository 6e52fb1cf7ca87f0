"""Rewrites `.ort` files in a fixed order, because ONNX Runtime writes hash maps in random order."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["in_fixed_order"]

IDENTIFIER = b"ORTM"
MAPS = {
    "Attributes": "Name",
    "Initializers": "Name",
    "KernelTypeStrArgs": "KernelTypeStr",
    "MetadataProps": "Key",
    "NodeArgs": "Name",
    "OpKernelTypeStrArgs": "OpId",
    "OpsetImport": "Domain",
}
"""Lists in the format that are hash maps in ONNX Runtime, each with the key of its items."""
SHUFFLED = b"ReorderOutput"
"""Nodes that ONNX Runtime adds in random order where a blocked layout ends."""


def in_fixed_order(model: bytes) -> bytes:
    """Rewrites a model so that equal models have equal bytes.

    Copies all tables with the classes of the format that ONNX Runtime ships. Sorts hash maps, and
    numbers `SHUFFLED` nodes by their outputs. All other orders are kept, because they matter.
    """
    import flatbuffers
    import onnxruntime.tools.ort_format_model  # noqa: F401 - makes `ort_flatbuffers_py` importable

    session = _module("InferenceSession")["InferenceSession"].GetRootAs(model)
    builder = flatbuffers.Builder(len(model))
    builder.Finish(_Copy(builder).table(session), IDENTIFIER)
    return bytes(builder.Output())


def _module(kind: str) -> Mapping[str, Any]:
    """The class of a kind of table, and the functions that write it."""
    return vars(importlib.import_module(f"ort_flatbuffers_py.fbs.{kind}"))


@dataclass(frozen=True)
class _Copy:
    """Copies tables into a builder; every method returns offsets, like the builder.

    nodes: new number and name of each renumbered node of a graph, by old number.
    """

    builder: Any
    nodes: Mapping[int, tuple[int, bytes]] = field(default_factory=dict)

    def table(self, table: Any) -> int:
        """Writes a table after all tables that it references."""
        kind = type(table).__name__
        if kind == "Graph":
            return replace(self, nodes=_renumbered(table))._written(kind, table)
        return self._written(kind, table)

    def _written(self, kind: str, table: Any) -> int:
        module, add = _module(kind), f"{kind}Add"
        values = {}
        for name in [function.removeprefix(add) for function in module if function.startswith(add)]:
            if f"{kind}Start{name}Vector" in module:
                values[name] = self._vector(kind, table, name)
            else:
                values[name] = self._value(self._field(kind, table, name))
        module[f"{kind}Start"](self.builder)
        for name, value in values.items():
            if value is not None:
                module[add + name](self.builder, value)
        return int(module[f"{kind}End"](self.builder))

    def _field(self, kind: str, table: Any, name: str) -> Any:
        if (kind, name) == ("TypeInfo", "Value"):
            return _held_by(table)
        if (kind, name) in (("Node", "Index"), ("NodeEdge", "NodeIndex")):
            return self._number(getattr(table, name)())
        if (kind, name) == ("Node", "Name") and table.Index() in self.nodes:
            return self.nodes[table.Index()][1]
        return getattr(table, name)()

    def _number(self, index: int) -> int:
        return self.nodes[index][0] if index in self.nodes else index

    def _value(self, value: Any) -> Any:
        """Returns numbers, and None for a field that is not set, unchanged."""
        if isinstance(value, bytes):
            return self.builder.CreateString(value)
        return self.table(value) if hasattr(value, "_tab") else value

    def _vector(self, kind: str, table: Any, name: str) -> int | None:
        if getattr(table, f"{name}IsNone")():
            return None
        if numbers := getattr(table, f"{name}AsNumpy", None):
            return int(self.builder.CreateNumpyVector(numbers()))
        items = [getattr(table, name)(i) for i in range(getattr(table, f"{name}Length")())]
        start = _module(kind)[f"{kind}Start{name}Vector"]
        if kind == "NodeEdge":  # structs are stored in the list itself
            ends = [(self._number(e.NodeIndex()), e.SrcArgIndex(), e.DstArgIndex()) for e in items]
            start(self.builder, len(ends))
            for end in sorted(ends, reverse=True):
                _module("EdgeEnd")["CreateEdgeEnd"](self.builder, *end)
            return int(self.builder.EndVector())
        if name in MAPS:
            items.sort(key=lambda item: getattr(item, MAPS[name])())
        if name == "Nodes":
            items.sort(key=lambda node: self._number(node.Index()))
        if name == "NodeEdges":
            items.sort(key=lambda edge: self._number(edge.NodeIndex()))
        offsets = [self._value(item) for item in items]
        start(self.builder, len(offsets))
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())


def _renumbered(graph: Any) -> dict[int, tuple[int, bytes]]:
    """New numbers and names of the `SHUFFLED` nodes of a graph, ordered by their outputs."""
    nodes = [graph.Nodes(i) for i in range(graph.NodesLength())]
    shuffled = [node for node in nodes if node.OpType() == SHUFFLED]
    places = sorted((node.Index(), node.Name()) for node in shuffled)
    ordered = sorted(shuffled, key=lambda node: node.Outputs(0))
    return {node.Index(): place for node, place in zip(ordered, places, strict=True)}


def _held_by(info: Any) -> Any:
    """The table in a `TypeInfo`; None if it has none."""
    held = info.Value()
    if held is None:
        return None
    kind = ("", "TensorTypeAndShape", "SequenceType", "MapType")[info.ValueType()]
    table = _module(kind)[kind]()
    table.Init(held.Bytes, held.Pos)
    return table
