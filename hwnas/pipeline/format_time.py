"""Estimates how long it takes to write and check one more format of a network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hwnas.core.speed import slowness
from hwnas.exporters import REGISTRY as EXPORTERS
from hwnas.exporters.artifact import PlannedFormat

__all__ = ["formats_s", "measured_weight", "table_s", "tested_s", "weight"]

FORMAT_S = {"coreml": 15.0, "executorch": 15.0, "features": 1.0, "timm": 3.0}
OTHER_S = 4.0  # most start from an ONNX graph
EXECUTORCH_INT8_S = 60.0  # calibrates and converts the network three times
MEASURED_S = 3.0  # a file on the test images, and its turns of timing
INTERPRETED_S = {"coreml": 15.0}


def formats_s(formats: Sequence[PlannedFormat]) -> float:
    """Estimated seconds to export one network to these formats, on a machine of `slowness` 1."""
    return sum(map(_seconds, formats))


def weight(one: PlannedFormat) -> int:
    """Share of a format in the progress of an export: so the time left hardly jumps."""
    return max(1, round(_seconds(one)))


def table_s(formats: Iterable[str]) -> float:
    """Estimated seconds to measure files of small networks for the table of all formats."""
    return sum(map(_measured_s, formats)) * slowness()


def tested_s(formats: Iterable[PlannedFormat]) -> float:
    """Estimated seconds to run files on the test images, each in a process of its own.

    Files that this process runs itself take no time of this kind.
    """
    names = [one.name for one in formats]
    return table_s(n for n in names if not getattr(EXPORTERS.declaration(n), "IN_PROCESS", False))


def measured_weight(format: str) -> int:
    """Share of a file in the progress of this table."""
    return max(1, round(_measured_s(format)))


def _measured_s(format: str) -> float:
    return INTERPRETED_S.get(format, MEASURED_S)


def _seconds(one: PlannedFormat) -> float:
    if (one.name, one.precision) == ("executorch", "int8"):
        return EXECUTORCH_INT8_S
    return FORMAT_S.get(one.name, OTHER_S)
