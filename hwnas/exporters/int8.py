"""ONNX in 8 bits: static QDQ, per channel, calibrated; layers that suffer stay float."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.exporters.base import STATIC_BATCH, OnnxConfig, OnnxRuntimeFormat, Source
from hwnas.interfaces import Exporter, ModelFile, RunsOn

__all__ = ["RUNS_ON", "Config", "build"]

RUNS_ON = (
    RunsOn("onnxruntime", "int8", {"symmetric": True}, providers=("Tensorrt", "NvTensorRT")),
    RunsOn(
        "onnxruntime", "int8", {"symmetric": False, "dynamic_batch": False}, providers=STATIC_BATCH
    ),
    RunsOn("onnxruntime", "int8", {"symmetric": False}),
    RunsOn("tensorrt", "int8", {"symmetric": True}, transport="remote"),
    RunsOn("tensorrt_rtx", "int8", {"symmetric": True}, transport="remote"),
)

FILE_NAME = "model.int8.onnx"
MIN_AGREEMENT = 0.98
TOLERANCE = 0.3  # of the largest logit; what decides is the agreement


class Config(OnnxConfig):
    """How ranges are found and when a layer stays float."""

    name: Literal["int8"] = "int8"
    n_calibration: Annotated[int, Field(ge=1, description="training images that set ranges")] = 128
    seed: Annotated[int, Field(ge=0, description="which of the images those are")] = 0
    method: Literal["minmax", "percentile", "entropy"] = "minmax"
    symmetric: bool = Field(
        False, description="signed activations around 0, float biases: what TensorRT and NPUs take"
    )
    target_agreement: Annotated[
        float, Field(gt=0, le=1, description="top-1 agreement below which layers stay float")
    ] = 0.99
    max_float_layers: Annotated[
        float, Field(ge=0, le=1, description="share of the layers that may stay float")
    ] = 0.5

    @property
    def file(self) -> str:
        """See `FormatConfig`."""
        return FILE_NAME


def build(config: Config) -> Exporter:
    """An exporter to `model.int8.onnx`; it needs `images` to calibrate with.

    Activations are unsigned and per tensor, weights signed and per channel. 8 bits need not be
    faster: in ONNX Runtime depthwise layers and gates gain little (in LiteRT they do, see
    `litert`), so a bundle states what was measured.
    """
    return _Int8(config)


@dataclass(frozen=True)
class _Int8(OnnxRuntimeFormat):
    config: Config

    def contents(self, source: Source) -> dict[str, bytes]:
        """The quantised graph; which layers stayed float is in the metadata under `int8`.

        Raises:
            UserError: there are no images to calibrate with.
        """
        import onnx

        from hwnas.builders.onnx import with_least_ir
        from hwnas.exporters.quantize import quantized

        config, images = self.config, source.images
        if images is None or not len(images):
            raise UserError(
                "8 bits need images to calibrate with",
                expected="training images",
                found="none",
                fix="give `images` to `export`; `hwnas export RUN` takes them from the data set",
            )
        graph = source.graph(opset=config.opset, dynamic_batch=config.dynamic_batch)
        order = rng(config.seed, "exporters/int8").permutation(len(images))
        chosen, others = order[: config.n_calibration], order[config.n_calibration :]
        found = quantized(
            graph,
            images[chosen],
            images[others] if len(others) else images[chosen],
            method=config.method,
            symmetric=config.symmetric,
            target_agreement=config.target_agreement,
            max_float_layers=config.max_float_layers,
        )
        facts = {
            "n_calibration": len(chosen),
            "seed": config.seed,
            "method": config.method,
            "symmetric": config.symmetric,
            "agreement_all_int8": round(found.agreement_all_int8, 4),
            "agreement": round(found.agreement, 4),
            "float_layers": list(found.float_layers),
            "n_layers": found.n_layers,
        }
        kept = {item.key: item.value for item in graph.metadata_props}
        onnx.helper.set_model_props(found.model, {**kept, "int8": json.dumps(facts)})
        model = with_least_ir(found.model)
        onnx.checker.check_model(model)
        return {FILE_NAME: model.SerializeToString()}

    def describe(self, files: Sequence[Path]) -> ModelFile:
        """One file; the agreement on images decides, logits may differ widely."""
        return ModelFile(
            FILE_NAME,
            "int8",
            "int8",
            batch=self.config.batch,
            opset=self.config.opset,
            parity_tolerance=TOLERANCE,
            min_agreement=MIN_AGREEMENT,
            least_runtime=self.config.least_runtime,
        )
