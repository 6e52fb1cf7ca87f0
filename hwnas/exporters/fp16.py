"""ONNX with weights and arithmetic in half precision; images and logits stay float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from hwnas.exporters.base import (
    MOST_HALF,
    PROMISES,
    STATIC_BATCH,
    OnnxConfig,
    OnnxRuntimeFormat,
    Source,
    half_overflow,
)
from hwnas.interfaces import Exporter, ModelFile, RunsOn

if TYPE_CHECKING:
    import onnx

__all__ = ["RUNS_ON", "Config", "build"]

IN_PROCESS = True

RUNS_ON = (
    RunsOn("onnxruntime", "fp16", {"dynamic_batch": False}, providers=STATIC_BATCH),
    RunsOn("onnxruntime", "fp16"),
    RunsOn("torch", "fp16"),
    RunsOn("tensorrt", "fp16", transport="remote"),
    RunsOn("tensorrt_rtx", "fp16", transport="remote"),
)

FILE_NAME = "model.fp16.onnx"

USAGE = """
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
logits = session.run(["logits"], {"input": x})[0]
"""


class Config(OnnxConfig):
    """Settings of the graph that is converted."""

    name: Literal["fp16"] = "fp16"

    @property
    def file(self) -> str:
        """Path of the model in a bundle, `model.fp16.onnx`.

        If a bundle has the format with several settings, labels are added to the names
        (`exporters.labels`).
        """
        return FILE_NAME


def build(config: Config) -> Exporter:
    """An exporter to `model.fp16.onnx`: the operators of `model.onnx` between two casts.

    GPUs and phones run it in half precision. The CPU kernels of ONNX Runtime compute in float32 and
    convert at each operator, so on a CPU the file is half as large but slower than fp32.
    """
    return _Fp16(config)


@dataclass(frozen=True)
class _Fp16(OnnxRuntimeFormat):
    config: Config

    def contents(self, source: Source) -> dict[str, bytes]:
        """The ONNX file in half precision.

        Raises:
            UserError: a weight exceeds the range of half precision.
        """
        import onnx

        from hwnas.builders.precision import to_precision

        graph = source.in_precision("fp16").graph(
            opset=self.config.opset, dynamic_batch=self.config.dynamic_batch
        )
        _check_range(graph)
        half = to_precision(graph, "fp16", float_io=True)
        onnx.checker.check_model(half, full_check=True)
        return {FILE_NAME: half.SerializeToString()}

    def describe(self, files: Sequence[Path]) -> ModelFile:
        """The manifest entry of the file, with the tolerance of half precision."""
        return ModelFile(
            FILE_NAME,
            "fp16",
            "fp16",
            batch=self.config.batch,
            opset=self.config.opset,
            **PROMISES["fp16"]._asdict(),
            least_runtime=self.config.least_runtime,
        )


def _check_range(graph: onnx.ModelProto) -> None:
    from onnx import TensorProto, numpy_helper

    for tensor in graph.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            largest = float(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0))
            if not largest <= MOST_HALF:
                raise half_overflow(largest, tensor.name)
