"""TensorRT engines, built on the NVIDIA GPU of this machine."""

from __future__ import annotations

from typing import Literal

from hwnas.exporters.engine import EngineConfig, EngineExporter, runs_on
from hwnas.interfaces import Exporter

__all__ = ["RUNS_ON", "Config", "build"]

REQUIRES = ("tensorrt",)
EXTRA = "tensorrt"
RUNS_ON = runs_on("tensorrt")
EXEMPT = {"runs_here": "engines run on their GPU"}


class Config(EngineConfig):
    """Precision and batch sizes of the engine."""

    name: Literal["tensorrt"] = "tensorrt"


def build(config: Config) -> Exporter:
    """An exporter to an engine and its metadata. The kit refuses the engine on other systems."""
    return EngineExporter("tensorrt", config.precision, config.batches, tf32=config.tf32)
