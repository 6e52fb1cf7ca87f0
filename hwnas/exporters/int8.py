"""ONNX in 8 bits: static QDQ, per channel, calibrated; sensitive layers stay in float."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from hwnas.exporters.base import PROMISES, STATIC_BATCH, OnnxConfig, OnnxRuntimeFormat, Source
from hwnas.exporters.mixed import (
    MaxFloatLayers,
    NCalibration,
    Seed,
    TargetAgreement,
    Weights,
    calibration,
)
from hwnas.interfaces import EightBits, Exporter, ModelFile, RunsOn

__all__ = ["RUNS_ON", "Config", "build"]

IN_PROCESS = True

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

USAGE = """
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
logits = session.run(["logits"], {"input": x})[0]
"""


class Config(OnnxConfig):
    """How ranges are determined, and when a layer stays in float."""

    name: Literal["int8"] = "int8"
    n_calibration: NCalibration = 128
    seed: Seed = 0
    method: Literal["minmax", "percentile", "entropy"] = "minmax"
    """How the ranges of activations are determined from the calibration images."""
    symmetric: bool = Field(
        False,
        description="Whether activations are signed with zero point 0, and biases stay in float, as"
        " TensorRT and NPUs expect.",
    )
    weights: Weights = "compensated"
    target_agreement: TargetAgreement = 0.99
    max_float_layers: MaxFloatLayers = 0.5

    @property
    def file(self) -> str:
        """Path of the model in a bundle, `model.int8.onnx`.

        If a bundle has the format with several settings, labels are added to the names
        (`exporters.labels`).
        """
        return FILE_NAME

    @property
    def rounding(self) -> EightBits | None:
        """The rounding rule of ONNX Runtime, for the setting `symmetric`."""
        return "onnx symmetric" if self.symmetric else "onnx"


def build(config: Config) -> Exporter:
    """An exporter to `model.int8.onnx`; it needs `images` for calibration.

    Activations are unsigned and per tensor; weights are signed and per channel, of 7 bits (of 8 if
    `symmetric`). The file is not always faster: in ONNX Runtime, depthwise layers and gates gain
    little from 8 bits (other runtimes differ, see `litert`). A bundle therefore states measured
    latencies.
    """
    return _Int8(config)


@dataclass(frozen=True)
class _Int8(OnnxRuntimeFormat):
    config: Config

    def contents(self, source: Source) -> dict[str, bytes]:
        """The quantised graph. Its metadata under `int8` list the layers that stayed in float.

        Raises:
            UserError: there are no images for calibration, or they have another size.
        """
        import onnx

        from hwnas.builders.onnx import with_least_ir
        from hwnas.exporters.quantize import LEVELS, on_grid, quantized

        config = self.config
        images = calibration(source, config.n_calibration, config.seed, "exporters/int8")
        graph = source.graph(opset=config.opset, dynamic_batch=config.dynamic_batch)
        rounded = None
        if config.weights == "compensated":
            rounded = on_grid(graph, source.model, images.ranges, levels=LEVELS[config.symmetric])
        found = quantized(
            graph,
            images.ranges,
            images.judged,
            method=config.method,
            symmetric=config.symmetric,
            target_agreement=config.target_agreement,
            max_float_layers=config.max_float_layers,
            rounded=rounded,
        )
        facts = {
            "n_calibration": len(images.ranges),
            "seed": config.seed,
            "method": config.method,
            "symmetric": config.symmetric,
            **found.facts,
        }
        kept = {item.key: item.value for item in graph.metadata_props}
        onnx.helper.set_model_props(found.model, {**kept, "int8": json.dumps(facts)})
        model = with_least_ir(found.model)
        onnx.checker.check_model(model)
        return {FILE_NAME: model.SerializeToString()}

    def describe(self, files: Sequence[Path]) -> ModelFile:
        """The manifest entry. Agreement on images is the criterion; logits may differ widely."""
        return ModelFile(
            FILE_NAME,
            "int8",
            "int8",
            batch=self.config.batch,
            opset=self.config.opset,
            **PROMISES["int8"]._asdict(),
            least_runtime=self.config.least_runtime,
        )
