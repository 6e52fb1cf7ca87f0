"""TensorRT engines, built on the NVIDIA GPU of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hwnas.core.config import StrictModel
from hwnas.exporters.engine import EngineExporter, Precision, describe_engine, open_engine
from hwnas.exporters.manifest import ModelFile
from hwnas.exporters.opened import OpenModel
from hwnas.interfaces import Exporter

__all__ = ["Config", "build", "describe", "open_model"]

REQUIRES = ("tensorrt",)
EXTRA = "tensorrt"
Batch = Annotated[int, Field(ge=1)]


class Config(StrictModel):
    """What is built, and for which batches."""

    name: Literal["tensorrt"] = "tensorrt"
    precision: Precision = Field("fp32", description="of which ONNX file: onnx, fp16 or int8")
    batches: tuple[Batch, Batch, Batch] = Field((1, 1, 8), description="least, usual, largest")

    @model_validator(mode="after")
    def _ordered(self) -> Config:
        if list(self.batches) != sorted(self.batches):
            raise ValueError("batches: least, usual, largest, in this order")
        return self


def build(config: Config) -> Exporter:
    """An exporter to an engine and the facts by which the kit refuses it elsewhere."""
    return EngineExporter("tensorrt", config.precision, config.batches)


def describe(config: Config, files: Sequence[Path]) -> ModelFile:
    """The manifest's entry of what `export` wrote."""
    return describe_engine("tensorrt", config.precision, files, config.batches)


def open_model(path: Path, *, threads: int = 1) -> OpenModel:
    """See `engine.open_engine`."""
    return open_engine(path)
