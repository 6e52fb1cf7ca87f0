"""Converts published latencies to tables; the facts state source and licence.

Values that a source lacks stay missing: a table serves only the spaces that its rows cover.
"""

from __future__ import annotations

from pathlib import Path

from hwnas.core.errors import UserError, did_you_mean
from hwnas.latency.table import LatencyTable, check_operator
from hwnas.measure.published import (
    OTHER_FORMAT,
    accel_nasbench,
    help,
    hw_nasbench201,
    ofa_i7,
    pixel1,
    tfnas,
)

__all__ = ["FORMATS", "convert"]

_FILES = {"ofa_i7": ofa_i7.convert, "pixel1": pixel1.convert, "tfnas": tfnas.convert}
_COLUMNS = {
    "accel_nasbench": accel_nasbench.convert,
    "help": help.convert,
    "hw_nasbench201": hw_nasbench201.convert,
}
FORMATS = tuple(sorted({*_FILES, *_COLUMNS}))


def convert(format: str, path: Path, column: str | None = None) -> LatencyTable:
    """Converts a published file or folder to a latency table.

    column: the device to take; required for `accel_nasbench`, `help` and `hw_nasbench201`,
        refused for the others.

    Raises:
        UserError: unknown format, a file of another format, or `column` is missing or refused.
    """
    if format not in FORMATS:
        raise UserError(
            f"unknown format {format!r}",
            expected=f"one of {', '.join(FORMATS)}",
            fix=did_you_mean(format, FORMATS, otherwise="name the source of the file"),
        )
    if (column is None) == (format in _COLUMNS):
        raise UserError(
            f"the format {format} needs a column, which selects the device"
            if column is None
            else f"the format {format} has only one device, and takes no column",
            expected=f"a column for the formats {', '.join(_COLUMNS)}, and for no other",
            found="no column" if column is None else f"the column {column!r}",
            fix="choose one with --device" if column is None else "leave --device out",
        )
    table = _FILES[format](path) if column is None else _COLUMNS[format](path, column)
    if not table.rows:
        raise UserError(
            f"the file has no operators of the format {format}",
            expected=f"a file of the format {format}",
            found="no operators",
            where=path,
            fix=OTHER_FORMAT,
        )
    for op, row in table.rows.items():
        check_operator(op, (row.median_ms, row.p90_ms, row.p95_ms), where=path)
    return table
