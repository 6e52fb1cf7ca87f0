"""`.tflite` for LiteRT (TensorFlow Lite): float32, half-precision weights, or 8 bits."""

from __future__ import annotations

import copy
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from hwnas import __version__
from hwnas.builders.tflite_graph import OLDEST
from hwnas.core.errors import UserError
from hwnas.exporters.base import OTHER_FORMATS, PROMISES, BatchConfig, Format, Source
from hwnas.exporters.float_graph import places
from hwnas.exporters.interpreter import Interpreted, litert_model, value_ranges
from hwnas.exporters.mixed import (
    LARGEST,
    MaxFloatLayers,
    NCalibration,
    Seed,
    TargetAgreement,
    Weights,
    calibration,
    mixed,
    saving,
)
from hwnas.interfaces import EightBits, Exporter, Images, ModelFile, OpenModel, RunsOn

if TYPE_CHECKING:
    import onnx

    from hwnas.builders.tflite_graph import Graph, Op

__all__ = ["RUNS_ON", "Config", "build"]

REQUIRES = ("ai_edge_litert",)
EXTRA = "litert"
RUNS_ON = (
    RunsOn("litert", "fp32", {"precision": "fp32"}),
    RunsOn("litert", "fp16", {"precision": "fp16"}),
    RunsOn("litert", "int8", {"precision": "int8"}),
)
FILES = {"fp32": "model.tflite", "fp16": "model.fp16.tflite", "int8": "model.int8.tflite"}

N_PLACES = 8  # places of unsupported operators in an error

log = logging.getLogger(__name__)

USAGE = """
from ai_edge_litert.interpreter import Interpreter

interpreter = Interpreter("{file}")
(given,), (found,) = interpreter.get_input_details(), interpreter.get_output_details()
interpreter.allocate_tensors()
interpreter.set_tensor(given["index"], x.transpose(0, 2, 3, 1))  # the network reads NHWC
interpreter.invoke()
logits = interpreter.get_tensor(found["index"])
"""


class Config(BatchConfig):
    """Precision, and how 8-bit ranges are determined."""

    name: Literal["litert"] = "litert"
    precision: Literal["fp32", "fp16", "int8"] = Field(
        "fp32",
        description="Precision of the file. `fp16`: only weights; `int8`: weights and activations.",
    )
    n_calibration: NCalibration = 128
    seed: Seed = 0
    weights: Weights = "compensated"
    target_agreement: TargetAgreement = 0.99
    max_float_layers: MaxFloatLayers = 0.5

    @property
    def file(self) -> str:
        """Path of the model in a bundle.

        It is `model.tflite`, `model.fp16.tflite` or `model.int8.tflite`. If a bundle has the format
        with several settings, labels are added to the names (`exporters.labels`).
        """
        return FILES[self.precision]

    @property
    def rounding(self) -> EightBits | None:
        """The rounding rule of LiteRT for an int8 file; None for the other precisions."""
        return "litert" if self.precision == "int8" else None


def build(config: Config) -> Exporter:
    """An exporter to `model.tflite`, `model.fp16.tflite` or `model.int8.tflite`.

    Images are NHWC. Images and logits are float32 in every precision. 8 bits need `images` for
    calibration. Operators without an 8-bit kernel in XNNPACK, such as hard-swish, stay in float.
    """
    return _LiteRt(config)


@dataclass(frozen=True)
class _LiteRt(Format):
    config: Config

    def contents(self, source: Source) -> dict[str, bytes]:
        """The model with its metadata; the entry `litert` lists quantised and delegated operators.

        Raises:
            UserError: LiteRT lacks an operator, or there are no images for calibration.
        """
        from hwnas.builders.tflite_precision import to_precision

        precision, name = self.config.precision, FILES[self.config.precision]
        source = source.in_precision(precision)
        proto = source.graph(dynamic_batch=self.config.dynamic_batch)
        facts: dict[str, Any] = {"precision": precision}
        if precision == "int8":
            graph, facts["int8"] = self._quantized(proto, source)
        else:
            graph = to_precision(_converted(proto, source), precision)
        facts["not_delegated"] = missed = Interpreted(graph.serialized(), where=name).fell_out()
        if missed:
            log.warning("%s: XNNPACK does not run %s", name, ", ".join(sorted({*missed})))
        metadata = {
            "hwnas_version": __version__,
            **source.metadata,
            "litert": json.dumps(facts, sort_keys=True),
        }
        return {name: graph.serialized(metadata)}

    def _quantized(self, proto: onnx.ModelProto, source: Source) -> tuple[Graph, dict[str, Any]]:
        """The 8-bit graph, and the record of its quantisation."""
        from hwnas.builders.tflite_precision import WEIGHTED, quantizable, to_precision

        config = self.config
        images = calibration(source, config.n_calibration, config.seed, "exporters/litert")
        graph = _converted(proto, source)
        ranges = value_ranges(graph, images.ranges)
        in_8_bits = quantizable(graph)

        def quantize(rounded: Graph, only: Sequence[str] = (), but: Sequence[str] = ()) -> Graph:
            in_float = set(in_8_bits) - set(only) if only else set(but)
            return to_precision(graph, "int8", ranges=ranges, in_float=in_float, rounded=rounded)

        ways = {"nearest": partial(quantize, graph)}
        if config.weights == "compensated":
            rounded = _rounded(proto, source, images.ranges)
            ways = {"compensated": partial(quantize, rounded), **ways}
        found = mixed(
            ways,
            _logits,
            {op.output: _saving(graph, op) for op in graph.ops if op.kind in WEIGHTED},
            images.judged,
            _logits(graph, images.judged),
            target_agreement=config.target_agreement,
            max_float_layers=config.max_float_layers,
        )
        kinds = {op.kind for op in found.model.ops if _is_float(found.model, op.output)}
        return found.model, {
            "n_calibration": len(images.ranges),
            "seed": config.seed,
            "method": "minmax",
            **found.facts,
            "float_operators": sorted(kinds - {"DEQUANTIZE"}),
        }

    def describe(self, files: Sequence[Path]) -> ModelFile:
        """The manifest entry of the file."""
        precision = self.config.precision
        return ModelFile(
            FILES[precision],
            "litert",
            precision,
            batch=self.config.batch,
            least_runtime=".".join(map(str, OLDEST)),
            layout="NHWC",
            **PROMISES[precision]._asdict(),
        )

    def open_model(self, path: Path, *, threads: int = 1) -> OpenModel:
        """Opens the file in LiteRT on the CPU, see `interpreter.litert_model`."""
        return litert_model(path, threads=threads)


def _converted(proto: onnx.ModelProto, source: Source) -> Graph:
    """The float graph of a network.

    Raises:
        UserError: LiteRT lacks an operator, or the outputs are not vectors.
    """
    from hwnas.builders.tflite import UnsupportedNodes, converted

    try:
        graph = converted(proto)
    except UnsupportedNodes as error:
        if found := places(source.model, source.input_shape, error.nodes):
            more = [f"{len(found) - N_PLACES} more"] * (len(found) > N_PLACES)
            error.say_where("; ".join(found[:N_PLACES] + more))
        raise
    shape = graph.tensors[graph.output].shape
    if len(shape) != 2:  # maps would be NHWC
        raise UserError(
            "hwnas writes LiteRT files only of networks that return logits",
            expected="an output [n, classes]",
            found=f"an output with {len(shape)} axes",
            fix=f"return logits, or {OTHER_FORMATS}",
        )
    return graph


def _rounded(proto: onnx.ModelProto, source: Source, images: Images) -> Graph:
    """The graph with weights that are whole numbers of their 8-bit scales."""
    from hwnas.exporters.quantize import on_grid, set_initializers

    weights = on_grid(proto, source.model, images, levels=LARGEST)
    proto = copy.deepcopy(proto)
    set_initializers(proto.graph, weights)
    return _converted(proto, source)


def _logits(graph: Graph, images: Images) -> Images:
    model = Interpreted(graph.serialized(), where="calibration")
    run = OpenModel(lambda x: model(x)[0], "litert", model.batch)
    return run.logits(images)


def _saving(graph: Graph, op: Op) -> float:
    maps = graph.tensors[op.output].shape[1:-1]
    return saving(math.prod(graph.tensors[op.inputs[1]].shape), math.prod(maps))


def _is_float(graph: Graph, value: str) -> bool:
    return graph.tensors[value].dtype == "float32"
