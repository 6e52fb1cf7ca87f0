"""TensorRT for RTX engines; they can be built ahead of time for other GPUs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hwnas.exporters.engine import EngineConfig, EngineExporter, runs_on
from hwnas.interfaces import Exporter

__all__ = ["RUNS_ON", "Config", "build"]

REQUIRES = ("tensorrt_rtx",)
EXTRA = "tensorrt-rtx"
QUICK = {"capability": "8.9"}  # built ahead of time, without a GPU
RUNS_ON = runs_on("tensorrt_rtx", capability=None)
EXEMPT = {"runs_here": "engines run on their GPU"}


class Config(EngineConfig):
    """Precision and batch sizes of the engine, and the kind of GPU for which it is built."""

    name: Literal["tensorrt_rtx"] = "tensorrt_rtx"
    capability: (
        Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]$", description="Compute capability.")] | None
    ) = Field(
        None,
        description="Compute capability of the target GPU, such as 8.9; null: the local GPU.",
    )


def build(config: Config) -> Exporter:
    """An exporter to an engine and its metadata. The kit refuses the engine on other systems."""
    return EngineExporter(
        "tensorrt_rtx", config.precision, config.batches, config.capability, config.tf32
    )
