"""Operators of a `.tflite` file as plain data, and their serialisation.

Tensors are NHWC. Names are those of the schema in the package of LiteRT: `CONV_2D` of
BuiltinOperator has the options of Conv2DOptions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.core.env import require
from hwnas.core.errors import UserError

__all__ = [
    "INPUT",
    "OLDEST",
    "OUTPUT",
    "Graph",
    "Op",
    "Quantization",
    "Tensor",
    "package",
    "package_version",
]

EXTRA = "litert"
OLDEST = (2, 3)  # oldest package with these operator versions and this schema
INPUT, OUTPUT = "input", "logits"
SIGNATURE = "serving_default"
SCHEMA_VERSION = 3
IDENTIFIER = b"TFL3"
OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "ADD": "AddOptions",
    "MUL": "MulOptions",
    "MEAN": "ReducerOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "CONCATENATION": "ConcatenationOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "RESHAPE": "ReshapeOptions",
    "TRANSPOSE": "TransposeOptions",
    "PAD": "PadOptions",
    "HARD_SWISH": "HardSwishOptions",
    "QUANTIZE": "QuantizeOptions",
    "DEQUANTIZE": "DequantizeOptions",
}
"""Maps each operator that has options to the name of their table in the schema."""
VERSIONS = {
    "CONV_2D": 6,
    "FULLY_CONNECTED": 12,
    "DEPTHWISE_CONV_2D": 3,
    "DEQUANTIZE": 3,
    "HARD_SWISH": 1,
    "QUANTIZE": 1,
    "RESHAPE": 1,
}
"""Lowest operator versions that support grouped filters, 8 bits and half precision.

Other operators have version 2.
"""
DTYPES = {"float32": "FLOAT32", "float16": "FLOAT16", "int32": "INT32", "int8": "INT8"}


def package_version() -> str:
    """Version of the package of LiteRT.

    Raises:
        UserError: the package is not installed, or too old.
    """
    found = str(require("ai_edge_litert", extra=EXTRA).__version__)
    if tuple(int(part) for part in found.split(".")[:2]) < OLDEST:
        raise UserError(
            "ai-edge-litert is too old",
            expected=f"{OLDEST[0]}.{OLDEST[1]} or later",
            found=found,
            fix=f"pip install -U 'hwnas[{EXTRA}]'",
        )
    return found


def package(module: str) -> Any:
    """A module of the package of LiteRT.

    Raises:
        UserError: as in `package_version`.
    """
    package_version()
    return require(f"ai_edge_litert.{module}", extra=EXTRA)


@dataclass(frozen=True)
class Quantization:
    """value = scale * (integer - zero_point); one scale, or one per channel along `axis`."""

    scale: NDArray[np.float32]
    zero_point: int = 0
    axis: int = 0


@dataclass(frozen=True)
class Tensor:
    """A tensor. `shape` starts with the batch, except for constants, whose value is `data`."""

    name: str
    shape: tuple[int, ...]
    data: NDArray[Any] | None = None
    dtype: str = "float32"
    quantization: Quantization | None = None


@dataclass(frozen=True)
class Op:
    """One operator. Inputs and output are tensor names; options use the names of the schema."""

    kind: str
    inputs: tuple[str, ...]
    output: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fused(self) -> str:
        """The activation that the operator applies itself: NONE, RELU or RELU6."""
        return str(self.options.get("fusedActivationFunction", "NONE"))


@dataclass
class Graph:
    """Operators in execution order, and their tensors. `is_open`: the batch can be resized."""

    ops: list[Op] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    is_open: bool = False
    output: str = OUTPUT

    def add(self, tensor: Tensor) -> str:
        """Adds a tensor; returns its name."""
        self.tensors[tensor.name] = tensor
        return tensor.name

    def constant(self, name: str, data: NDArray[Any]) -> str:
        """Adds a constant; returns its name."""
        return self.add(Tensor(name, data.shape, data, str(data.dtype)))

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is a constant."""
        return self.tensors[name].data is not None

    def values(self) -> list[str]:
        """Names of the tensors that depend on the image, in the order of their computation."""
        return [INPUT, *(op.output for op in self.ops)]

    def copy(self) -> Graph:
        """A copy of the graph with its own lists."""
        return replace(self, ops=list(self.ops), tensors=dict(self.tensors))

    def serialized(
        self, metadata: Mapping[str, str] | None = None, outputs: Sequence[str] = ()
    ) -> bytes:
        """The content of the `.tflite` file; its outputs are the logits, then `outputs`.

        Equal graphs give equal bytes.

        Raises:
            UserError: the package of LiteRT is not installed, or too old.
        """
        schema = package("schema_py_generated")
        import flatbuffers

        builder = flatbuffers.Builder(1 << 20)
        model = self._model(schema, metadata or {}, outputs)
        builder.Finish(model.Pack(builder), IDENTIFIER)
        return bytes(builder.Output())

    def _model(self, schema: Any, metadata: Mapping[str, str], outputs: Sequence[str]) -> Any:
        used = {name for op in self.ops for name in (*op.inputs, op.output)} | {INPUT}
        number = {name: i for i, name in enumerate(n for n in self.tensors if n in used)}
        kinds = sorted({op.kind for op in self.ops})
        buffers = [schema.BufferT()]  # the first buffer is for tensors without data
        tensors = [_tensor(schema, self.tensors[name], buffers, self.is_open) for name in number]
        facts = []
        for key, text in metadata.items():
            facts.append(schema.MetadataT(name=key, buffer=len(buffers)))
            buffers.append(schema.BufferT(np.frombuffer(text.encode(), np.uint8)))
        graph = schema.SubGraphT(
            tensors=tensors,
            inputs=[number[INPUT]],
            outputs=[number[name] for name in (self.output, *outputs)],
            operators=[_operator(schema, op, kinds, number) for op in self.ops],
            name="main",
        )
        signature = schema.SignatureDefT(
            inputs=[schema.TensorMapT(INPUT, number[INPUT])],
            outputs=[schema.TensorMapT(OUTPUT, number[self.output])],
            signatureKey=SIGNATURE,
            subgraphIndex=0,
        )
        return schema.ModelT(
            version=SCHEMA_VERSION,
            operatorCodes=[_code(schema, kind) for kind in kinds],
            subgraphs=[graph],
            description="hwnas",
            buffers=buffers,
            metadata=facts,
            signatureDefs=[signature],
        )


def _code(schema: Any, kind: str) -> Any:
    code = getattr(schema.BuiltinOperator, kind)
    return schema.OperatorCodeT(
        deprecatedBuiltinCode=min(code, 127), builtinCode=code, version=VERSIONS.get(kind, 2)
    )


def _tensor(schema: Any, tensor: Tensor, buffers: list[Any], is_open: bool) -> Any:
    """The record of a tensor; its data are appended to `buffers`."""
    made = schema.TensorT(
        shape=list(tensor.shape),
        type=getattr(schema.TensorType, DTYPES[tensor.dtype]),
        buffer=0,
        name=tensor.name,
    )
    if tensor.data is not None:
        made.buffer = len(buffers)
        content = np.ascontiguousarray(tensor.data).tobytes()
        buffers.append(schema.BufferT(np.frombuffer(content, np.uint8)))
    elif is_open:
        made.shapeSignature = [-1, *tensor.shape[1:]]
    if (scheme := tensor.quantization) is not None:
        made.quantization = schema.QuantizationParametersT(
            scale=scheme.scale.reshape(-1),
            zeroPoint=np.full(scheme.scale.size, scheme.zero_point, dtype=np.int64),
            quantizedDimension=scheme.axis,
        )
    return made


def _operator(schema: Any, op: Op, kinds: Iterable[str], number: Mapping[str, int]) -> Any:
    made = schema.OperatorT(
        opcodeIndex=list(kinds).index(op.kind),
        inputs=[number[name] for name in op.inputs],
        outputs=[number[op.output]],
    )
    if table := OPTIONS.get(op.kind):
        made.builtinOptionsType = getattr(schema.BuiltinOptions, table)
        made.builtinOptions = getattr(schema, f"{table}T")()
        for key, value in op.options.items():
            if key == "padding":
                value = getattr(schema.Padding, value)
            elif key == "fusedActivationFunction":
                value = getattr(schema.ActivationFunctionType, value)
            setattr(made.builtinOptions, key, value)
    return made
