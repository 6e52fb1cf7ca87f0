"""The precision of a model file, from its content. Needs only the standard library.

`python bundle_precision.py MODEL ...` prints the precisions as a JSON list.
"""

import json
import sys
import xml.etree.ElementTree as tree
from pathlib import Path

from bundle_tflite import tflite_kinds

FLOAT16 = 10  # in TensorProto.DataType of ONNX
GRAPH, NODE, INITIALIZER = 7, 1, 5  # fields of ModelProto, GraphProto of ONNX
OP_TYPE, DATA_TYPE = 4, 2  # of NodeProto, TensorProto


def precision_of(path):
    """The lowest precision of the file's computation: fp32, fp16 or int8; None: unknown format."""
    path = Path(path)
    try:
        if path.suffix == ".onnx":
            return lowest(onnx_kinds(path.read_bytes()))
        if path.suffix == ".tflite":
            return lowest(tflite_kinds(path.read_bytes()))
        if path.suffix == ".xml":
            return lowest(openvino_kinds(path))
        if path.suffix == ".engine":
            facts = path.with_name(f"{path.name}.json")
            return str(json.loads(facts.read_text(encoding="utf-8"))["precision"])
    except (OSError, ValueError, KeyError, IndexError, TypeError, tree.ParseError):
        return "unreadable"
    return None


def lowest(kinds):
    """The lowest precision among those of the parts of a graph."""
    if "int8" in kinds:
        return "int8"
    return "fp16" if "fp16" in kinds else "fp32"


def onnx_kinds(data):
    """Precisions of the parts of an ONNX model; int8 if values are quantised."""
    kinds = set()
    graphs = [graph for field, graph in fields(memoryview(data)) if field == GRAPH]
    for part, inside in (pair for graph in graphs for pair in fields(graph)):
        values = list(fields(inside)) if part in (NODE, INITIALIZER) else ()
        if part == NODE and (OP_TYPE, b"DequantizeLinear") in values:
            kinds.add("int8")
        elif part == INITIALIZER:
            kinds.add("fp16" if (DATA_TYPE, FLOAT16) in values else "fp32")
    if not kinds:
        raise ValueError("no weights")
    return kinds


def fields(data):
    """(number, value) of every field of a protobuf message; values are numbers or bytes."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = varint(data, at)
        else:
            size, at = varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            if at + size > len(data):
                raise ValueError("the file ends within a field")
            value, at = data[at : at + size], at + size
        yield key >> 3, value


def varint(data, at):
    """(number, position after it)."""
    value = shift = 0
    while True:
        byte = data[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at


def openvino_kinds(path):
    """Precisions of the layers of an OpenVINO graph; int8 if values are quantised."""
    layers = list(tree.parse(path).getroot().iterfind(".//layer"))
    kinds = {"int8" for layer in layers if layer.get("type") == "FakeQuantize"}
    constants = [layer for layer in layers if layer.get("type") == "Const"]
    types = {data.get("element_type") for layer in constants for data in layer.iter("data")}
    kinds |= {"fp16" if kind == "f16" else "fp32" for kind in types}
    if not types:
        raise ValueError("no weights")
    return kinds


if __name__ == "__main__":
    print(json.dumps([precision_of(name) for name in sys.argv[1:]]))
