"""Converts published latencies to tables; the facts state source and licence.

Values that a source lacks stay missing: a table serves only the spaces that its rows cover.
"""

from __future__ import annotations

from pathlib import Path

from hwnas.core.errors import UserError
from hwnas.latency.table import LatencyTable
from hwnas.measure.published import help, pixel1, tfnas

__all__ = ["FORMATS", "convert"]

FORMATS = ("help", "pixel1", "tfnas")


def convert(format: str, path: Path, column: str | None = None) -> LatencyTable:
    """The table in a published file or folder; `column` selects a device if there are several.

    Raises:
        UserError: unknown format, or a file of another format.
    """
    if format not in FORMATS:
        raise UserError(f"unknown format {format!r}", expected=", ".join(FORMATS))
    if (column is None) == (format == "help"):
        raise UserError(
            "a column must be given for the format `help`, and for no other",
            found=f"format {format}, column {column}",
        )
    if column is not None:
        return help.convert(path, column)
    return pixel1.convert(path) if format == "pixel1" else tfnas.convert(path)
