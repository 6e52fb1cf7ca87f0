"""`.ort` for ONNX Runtime Mobile: an optimised graph in a format without protobuf."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from hwnas.exporters.base import BatchConfig, OnnxRuntimeFormat, Source
from hwnas.exporters.capture import quiet
from hwnas.exporters.float_graph import OPSET
from hwnas.exporters.ort_order import in_fixed_order
from hwnas.interfaces import Exporter, ModelFile

__all__ = ["Config", "build"]

IN_PROCESS = True

FILE_NAME = "model.ort"
LEAST_ONNXRUNTIME = "1.16"  # the first version that reads version 6 of the format
OPERATORS = "model.required_operators.config"

USAGE = """
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
logits = session.run(["logits"], {"input": x})[0]
"""


class Config(BatchConfig):
    """The target of the graph optimisation."""

    name: Literal["ort"] = "ort"
    target: Literal["any", "arm", "amd64"] = Field(
        "any",
        description="Processors for which the graph is optimised. `any`, `arm`: the usual tensor"
        " layout; `amd64`: blocked layouts, x86 only.",
    )

    @property
    def file(self) -> str:
        """Path of the model in a bundle, `model.ort`.

        If a bundle has the format with several settings, labels are added to the names
        (`exporters.labels`).
        """
        return FILE_NAME


def build(config: Config) -> Exporter:
    """An exporter to `model.ort` and the list of its operators.

    A reduced build of ONNX Runtime must include these operators.
    """
    return _Ort(config)


@dataclass(frozen=True)
class _Ort(OnnxRuntimeFormat):
    config: Config

    TAKES_TOKENS: ClassVar[bool] = True

    def contents(self, source: Source) -> dict[str, bytes]:
        """The optimised graph with `metadata`, and the list of its operators."""
        from onnxruntime.tools.convert_onnx_models_to_ort import (
            OptimizationStyle,
            convert_onnx_models_to_ort,
        )

        target = None if self.config.target == "any" else self.config.target
        graph = source.graph(dynamic_batch=self.config.dynamic_batch)
        with tempfile.TemporaryDirectory() as temporary:
            float_onnx = Path(temporary, "model.onnx")
            float_onnx.write_bytes(graph.SerializeToString())
            with quiet():
                convert_onnx_models_to_ort(
                    float_onnx,
                    optimization_styles=[OptimizationStyle.Fixed],
                    target_platform=target,
                )
            made = {name: Path(temporary, name).read_bytes() for name in (FILE_NAME, OPERATORS)}
        return {
            FILE_NAME: in_fixed_order(made[FILE_NAME]),
            OPERATORS: made[OPERATORS].replace(temporary.encode(), b"."),
        }

    def describe(self, files: Sequence[Path]) -> ModelFile:
        """The manifest entry of the graph. Devices do not need the list of operators."""
        return ModelFile(
            FILE_NAME,
            "ort",
            "fp32",
            batch=self.config.batch,
            opset=OPSET,
            least_runtime=LEAST_ONNXRUNTIME,
        )
