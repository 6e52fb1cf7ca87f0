"""`.ort` for ONNX Runtime Mobile: the graph already optimised, in a format without protobuf."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.core.store import write_bytes
from hwnas.exporters.float_graph import OPSET, float_graph, quiet
from hwnas.exporters.manifest import ModelFile
from hwnas.exporters.opened import Images, OpenModel
from hwnas.interfaces import Exporter

if TYPE_CHECKING:
    import torch

__all__ = ["Config", "build", "describe", "open_model"]

FILE_NAME = "model.ort"
OPERATORS = "model.required_operators.config"


class Config(StrictModel):
    """How the graph is optimised."""

    name: Literal["ort"] = "ort"
    dynamic_batch: bool = Field(True, description="any batch size; otherwise exactly 1")
    target: Literal["any", "arm", "amd64"] = Field(
        "any", description="any: no layouts of one processor; amd64: blocked layouts of x86"
    )


def build(config: Config) -> Exporter:
    """An exporter to `model.ort` and the list of operators that a reduced build of ONNX Runtime
    must have."""
    return _OrtExporter(config)


def describe(config: Config, files: Sequence[Path]) -> ModelFile:
    """The manifest's entry of what `export` wrote."""
    batch = None if config.dynamic_batch else 1
    return ModelFile(FILE_NAME, "ort", "fp32", batch=batch, opset=OPSET)


def open_model(path: Path, *, threads: int = 1) -> OpenModel:
    """The file in ONNX Runtime."""
    from hwnas.exporters.opened import onnxruntime_model

    return onnxruntime_model(path, threads=threads)


@dataclass(frozen=True)
class _OrtExporter:
    config: Config

    def export(
        self,
        model: torch.nn.Module,
        *,
        input_shape: Sequence[int],
        folder: Path,
        metadata: Mapping[str, str] | None = None,
        images: Images | None = None,
    ) -> tuple[Path, ...]:
        """See `interfaces.Exporter`; the format keeps `metadata`."""
        from onnxruntime.tools.convert_onnx_models_to_ort import (
            OptimizationStyle,
            convert_onnx_models_to_ort,
        )

        proto = float_graph(
            model,
            input_shape=input_shape,
            folder=folder,
            metadata=metadata,
            dynamic_batch=self.config.dynamic_batch,
        )
        with tempfile.TemporaryDirectory() as name:
            source = Path(name, "model.onnx")
            source.write_bytes(proto.SerializeToString())
            with quiet():
                convert_onnx_models_to_ort(
                    source,
                    optimization_styles=[OptimizationStyle.Fixed],
                    target_platform=None if self.config.target == "any" else self.config.target,
                )
            files = []
            for made in (FILE_NAME, OPERATORS):
                files.append(Path(folder) / made)
                write_bytes(files[-1], Path(name, made).read_bytes())
        return tuple(files)
