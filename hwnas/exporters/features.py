"""ONNX of the network as a feature extractor: one map per stride, for detection and masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hwnas import __version__
from hwnas.exporters.base import OnnxConfig, OnnxRuntimeFormat, Source
from hwnas.exporters.float_graph import OUTPUT_NAME, exported
from hwnas.interfaces import Exporter, ModelFile

__all__ = ["Config", "build"]

IN_PROCESS = True

FILE_NAME = "features.onnx"

USAGE = """
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
logits = session.run(["logits"], {"input": x})[0]
"""


class Config(OnnxConfig):
    """Settings of the exported graph."""

    name: Literal["features"] = "features"


def build(config: Config) -> Exporter:
    """An exporter to `features.onnx` with tensors `input` [B, C, H, W], `logits`, `stride4`, ...

    Every map `strideN` is [B, channels, H / N, W / N]. `nets.pyramid.FeaturePyramid` gives the
    same maps in torch. To compute maps without the head, fetch only them and set
    `RunOptions.only_execute_path_to_fetches`.
    """
    return _Features(config)


@dataclass(frozen=True)
class _Features(OnnxRuntimeFormat):
    config: Config

    def contents(self, source: Source) -> dict[str, bytes]:
        """The ONNX file, with `source.metadata` in its metadata_props.

        Raises:
            UserError: the network has no stages of blocks.
        """
        from hwnas.nets.features import WithFeatures

        model = WithFeatures(source.model)
        graph = exported(
            model,
            source.input_shape,
            properties={"hwnas_version": __version__, **source.metadata},
            opset=self.config.opset,
            dynamic_batch=self.config.dynamic_batch,
            outputs=(OUTPUT_NAME, *(f"stride{n}" for n in model.feature_info.reduction())),
        )
        return {FILE_NAME: graph.SerializeToString()}

    def describe(self, files: Sequence[Path]) -> ModelFile:
        """The manifest entry of the file."""
        config = self.config
        return ModelFile(
            FILE_NAME,
            "features",
            "fp32",
            batch=config.batch,
            opset=config.opset,
            least_runtime=config.least_runtime,
        )
