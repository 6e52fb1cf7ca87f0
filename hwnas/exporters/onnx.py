"""ONNX by the torch.export-based exporter: BN folded, static or dynamic batch, one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.core.store import write_bytes
from hwnas.exporters.float_graph import FILE_NAME, OPSET, float_graph
from hwnas.exporters.manifest import ModelFile
from hwnas.exporters.opened import Images, OpenModel
from hwnas.interfaces import Exporter

if TYPE_CHECKING:
    import torch

__all__ = ["Config", "build", "describe", "open_model"]


class Config(StrictModel):
    """Settings of the exported graph."""

    name: Literal["onnx"] = "onnx"
    opset: Annotated[int, Field(ge=18, le=23, description="ONNX operator set of the target")] = (
        OPSET
    )
    dynamic_batch: bool = Field(True, description="any batch size; otherwise exactly 1")


def build(config: Config) -> Exporter:
    """An exporter to `model.onnx` with tensors `input` [B, C, H, W] and `logits` [B, classes]."""
    return _OnnxExporter(config)


def describe(config: Config, files: Sequence[Path]) -> ModelFile:
    """The manifest's entry of what `export` wrote."""
    batch = None if config.dynamic_batch else 1
    return ModelFile(FILE_NAME, "onnx", "fp32", batch=batch, opset=config.opset)


def open_model(path: Path, *, threads: int = 1) -> OpenModel:
    """The file in ONNX Runtime."""
    from hwnas.exporters.opened import onnxruntime_model

    return onnxruntime_model(path, threads=threads)


@dataclass(frozen=True)
class _OnnxExporter:
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
        """See `interfaces.Exporter`; `metadata` goes into the file's metadata_props."""
        proto = float_graph(
            model,
            input_shape=input_shape,
            folder=folder,
            metadata=metadata,
            opset=self.config.opset,
            dynamic_batch=self.config.dynamic_batch,
        )
        path = Path(folder) / FILE_NAME
        write_bytes(path, proto.SerializeToString())
        return (path,)
