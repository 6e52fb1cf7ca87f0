"""Estimates how long it takes to write and check one more format of a network."""

from __future__ import annotations

from collections.abc import Sequence

from hwnas.core.speed import slowness
from hwnas.exporters.artifact import PlannedFormat

__all__ = ["formats_s", "table_s"]

FORMAT_S = {"coreml": 15.0, "executorch": 15.0, "features": 1.0, "timm": 3.0}
OTHER_S = 4.0  # most start from an ONNX graph
EXECUTORCH_INT8_S = 60.0  # calibrates and converts the network three times
MEASURED_S = 3.0  # a file on the test images, and its turns of timing


def formats_s(formats: Sequence[PlannedFormat]) -> float:
    """Estimated seconds to export one network to these formats, on a machine of `slowness` 1."""
    return sum(map(_seconds, formats))


def table_s(n_files: int) -> float:
    """Estimated seconds to measure files of small networks for the table of all formats."""
    return n_files * MEASURED_S * slowness()


def _seconds(one: PlannedFormat) -> float:
    if (one.name, one.precision) == ("executorch", "int8"):
        return EXECUTORCH_INT8_S
    return FORMAT_S.get(one.name, OTHER_S)
