"""`.tflite` for LiteRT (TensorFlow Lite): float32, half-precision weights, or 8 bits."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from hwnas import __version__
from hwnas.builders.tflite_graph import OLDEST
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.exporters.base import BatchConfig, Format, Source
from hwnas.exporters.interpreter import Interpreted, litert_model, value_ranges
from hwnas.exporters.mixed import mixed
from hwnas.interfaces import Exporter, Images, ModelFile, OpenModel, RunsOn

if TYPE_CHECKING:
    from hwnas.builders.tflite_graph import Graph

__all__ = ["RUNS_ON", "Config", "build"]

REQUIRES = ("ai_edge_litert",)
EXTRA = "litert"
RUNS_ON = (
    RunsOn("litert", "fp32", {"precision": "fp32"}),
    RunsOn("litert", "fp16", {"precision": "fp16"}),
    RunsOn("litert", "int8", {"precision": "int8"}),
)
FILES = {"fp32": "model.tflite", "fp16": "model.fp16.tflite", "int8": "model.int8.tflite"}
PROMISES = {"fp32": (1e-4, 1.0), "fp16": (0.03, 0.995), "int8": (0.3, 0.98)}
"""By precision: the largest difference, relative to the largest logit; the least agreement."""

log = logging.getLogger(__name__)


class Config(BatchConfig):
    """Precision, and how the ranges of 8 bits are found."""

    name: Literal["litert"] = "litert"
    precision: Literal["fp32", "fp16", "int8"] = Field(
        "fp32", description="fp16: weights; int8: weights and activations"
    )
    n_calibration: Annotated[int, Field(ge=1, description="training images that set ranges")] = 128
    seed: Annotated[int, Field(ge=0, description="which of the images those are")] = 0
    target_agreement: Annotated[
        float, Field(gt=0, le=1, description="top-1 agreement below which layers stay float")
    ] = 0.99
    max_float_layers: Annotated[
        float, Field(ge=0, le=1, description="share of the layers that may stay float")
    ] = 0.5

    @property
    def file(self) -> str:
        """See `FormatConfig`."""
        return FILES[self.precision]


def build(config: Config) -> Exporter:
    """An exporter to `model.tflite`, `model.fp16.tflite` or `model.int8.tflite`.

    Images are NHWC; images and logits are float32 in every precision. 8 bits need `images` to
    calibrate with; operators without an 8-bit kernel in XNNPACK, such as hard-swish, stay float.
    """
    return _LiteRt(config)


@dataclass(frozen=True)
class _LiteRt(Format):
    config: Config

    def contents(self, source: Source) -> dict[str, bytes]:
        """The model; `metadata`, and under `litert` what was quantised and delegated, are in it.

        Raises:
            UserError: LiteRT has no such operator, or there are no images to calibrate with.
        """
        from hwnas.builders.tflite import converted
        from hwnas.builders.tflite_precision import to_precision

        precision, name = self.config.precision, FILES[self.config.precision]
        graph = converted(source.graph(dynamic_batch=self.config.dynamic_batch))
        facts: dict[str, Any] = {"precision": precision}
        if precision == "int8":
            graph, facts["int8"] = self._quantized(graph, _images(source))
        else:
            graph = to_precision(graph, precision)
        facts["not_delegated"] = missed = Interpreted(graph.serialized(), where=name).fell_out()
        if missed:
            log.warning("%s: XNNPACK does not take %s", name, ", ".join(sorted({*missed})))
        metadata = {
            "hwnas_version": __version__,
            **source.metadata,
            "litert": json.dumps(facts, sort_keys=True),
        }
        return {name: graph.serialized(metadata)}

    def _quantized(self, graph: Graph, images: Images) -> tuple[Graph, dict[str, Any]]:
        """The graph in 8 bits, and how it was found."""
        from hwnas.builders.tflite_precision import WEIGHTED, quantizable, to_precision

        config = self.config
        order = rng(config.seed, "exporters/litert").permutation(len(images))
        chosen, others = order[: config.n_calibration], order[config.n_calibration :]
        ranges = value_ranges(graph, images[chosen])
        in_8_bits = quantizable(graph)

        def quantize(only: Sequence[str] = (), but: Sequence[str] = ()) -> Graph:
            in_float = set(in_8_bits) - set(only) if only else set(but)
            return to_precision(graph, "int8", ranges=ranges, in_float=in_float)

        judged = images[others if len(others) else chosen]
        found = mixed(
            quantize,
            _logits,
            [op.output for op in graph.ops if op.kind in WEIGHTED],
            judged,
            _logits(graph, judged),
            target_agreement=config.target_agreement,
            max_float_layers=config.max_float_layers,
        )
        kinds = {op.kind for op in found.model.ops if _is_float(found.model, op.output)}
        return found.model, {
            "n_calibration": len(chosen),
            "seed": config.seed,
            "method": "minmax",
            "agreement_all_int8": round(found.agreement_all_int8, 4),
            "agreement": round(found.agreement, 4),
            "float_layers": list(found.float_layers),
            "float_operators": sorted(kinds - {"DEQUANTIZE"}),
            "n_layers": found.n_layers,
        }

    def describe(self, files: Sequence[Path]) -> ModelFile:
        """One file."""
        precision = self.config.precision
        tolerance, agreement = PROMISES[precision]
        return ModelFile(
            FILES[precision],
            "litert",
            precision,
            batch=self.config.batch,
            parity_tolerance=tolerance,
            min_agreement=agreement,
            least_runtime=".".join(map(str, OLDEST)),
            layout="NHWC",
        )

    def open_model(self, path: Path, *, threads: int = 1) -> OpenModel:
        """The file in LiteRT on the CPU, see `interpreter.litert_model`."""
        return litert_model(path, threads=threads)


def _images(source: Source) -> Images:
    """What 8 bits are calibrated with.

    Raises:
        UserError: there are no images, or they are of another size.
    """
    images = source.images
    if images is None or not len(images):
        raise UserError(
            "8 bits need images to calibrate with",
            expected="training images",
            found="none",
            fix="give `images` to `export`; `hwnas export RUN` takes them from the data set",
        )
    if images.shape[1:] != tuple(source.input_shape):
        raise UserError(
            "images to calibrate with are of another size than the network takes",
            expected=f"[n, {', '.join(map(str, source.input_shape))}]",
            found=list(images.shape),
            where="images",
        )
    return images


def _logits(graph: Graph, images: Images) -> Images:
    model = Interpreted(graph.serialized(), where="calibration")
    run = OpenModel(lambda x: model(x)[0], "litert", model.batch)
    return run.logits(images)


def _is_float(graph: Graph, value: str) -> bool:
    return graph.tensors[value].dtype == "float32"
