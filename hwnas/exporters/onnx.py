"""ONNX from the torch.export-based exporter: BN folded, fixed or dynamic batch, one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from hwnas.exporters.base import STATIC_BATCH, OnnxConfig, OnnxRuntimeFormat, Source
from hwnas.exporters.float_graph import FILE_NAME
from hwnas.interfaces import Exporter, ModelFile, RunsOn

__all__ = ["RUNS_ON", "Config", "build"]

IN_PROCESS = True

RUNS_ON = (
    RunsOn("onnxruntime", "fp32", {"dynamic_batch": False}, providers=STATIC_BATCH),
    RunsOn("onnxruntime", "fp32"),
    RunsOn("torch", "fp32"),
    RunsOn("tensorrt", "fp32", transport="remote"),
    RunsOn("tensorrt_rtx", "fp32", transport="remote"),
)

USAGE = """
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
logits = session.run(["logits"], {"input": x})[0]
"""


class Config(OnnxConfig):
    """Settings of the exported graph."""

    name: Literal["onnx"] = "onnx"

    @property
    def file(self) -> str:
        """Path of the model in a bundle, `model.onnx`.

        If a bundle has the format with several settings, labels are added to the names
        (`exporters.labels`).
        """
        return FILE_NAME


def build(config: Config) -> Exporter:
    """An exporter to `model.onnx` with tensors `input` [B, C, H, W] and `logits` [B, classes].

    For a recurrent network, the file is one step: `token` int64 [B] and `state` [B, width] ->
    `logits` [B, words] and `next_state` [B, width].
    """
    return _Onnx(config)


@dataclass(frozen=True)
class _Onnx(OnnxRuntimeFormat):
    config: Config

    TAKES_TOKENS: ClassVar[bool] = True

    def contents(self, source: Source) -> dict[str, bytes]:
        """The file with the graph; the metadata of `source` are its `metadata_props`."""
        graph = source.graph(opset=self.config.opset, dynamic_batch=self.config.dynamic_batch)
        return {FILE_NAME: graph.SerializeToString()}

    def describe(self, files: Sequence[Path]) -> ModelFile:
        """The manifest entry of the file."""
        config = self.config
        return ModelFile(
            FILE_NAME,
            "onnx",
            "fp32",
            batch=config.batch,
            opset=config.opset,
            least_runtime=config.least_runtime,
        )
