"""Reads CSV files of published measurements as untrusted input."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hwnas.core.csv_data import read_csv
from hwnas.core.errors import UserError
from hwnas.measure.published import DOWNLOAD_AGAIN, OTHER_FORMAT

__all__ = ["Row", "read_rows"]

MAX_COUNT = 1 << 24


@dataclass(frozen=True)
class Row:
    """A line of a CSV file; every cell is checked when it is read."""

    cells: dict[str, str]
    where: str

    def text(self, column: str) -> str:
        """The cell, printable."""
        cell = self.cells[column]
        if not cell.isprintable() or len(cell) > 200:
            raise self.malformed(column, "up to 200 printable characters")
        return cell

    def number(self, column: str) -> float:
        """A finite number."""
        try:
            found = float(self.cells[column])
        except ValueError:
            raise self.malformed(column, "a number") from None
        if not math.isfinite(found):
            raise self.malformed(column, "a finite number")
        return found

    def positive(self, column: str) -> float:
        """A finite number above 0."""
        found = self.number(column)
        if found <= 0:
            raise self.malformed(column, "a number above 0")
        return found

    def count(self, column: str) -> int:
        """A whole number of 1 or more."""
        found = self.number(column)
        if found != int(found) or not 1 <= found <= MAX_COUNT:
            raise self.malformed(column, f"a whole number from 1 to {MAX_COUNT:,}")
        return int(found)

    def flag(self, column: str) -> bool:
        """0 or 1."""
        if self.cells[column] not in ("0", "1"):
            raise self.malformed(column, "0 or 1")
        return self.cells[column] == "1"

    def malformed(self, column: str, expected: str) -> UserError:
        """The error that names this cell."""
        return UserError(
            f"malformed value in column `{column}`",
            expected=expected,
            found=f"{self.cells[column]!r:.80}",
            where=self.where,
            fix=DOWNLOAD_AGAIN,
        )


def read_rows(path: Path, file: str, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a CSV file (or of `file` in a folder) that has at least these columns.

    Raises:
        UserError: the file is missing, too large or not CSV, lacks a column, or has no rows.
    """
    is_folder = path.is_dir() or (not path.suffix and not path.exists())
    table = read_csv(path / file if is_folder else path, columns)
    if lost := [name for name in columns if name not in table.columns]:
        raise UserError(
            "the file lacks columns of this format",
            expected=f"the columns {', '.join(columns)}",
            found=f"no column {' or '.join(lost)}",
            where=table.path,
            fix=OTHER_FORMAT,
        )
    if not table.rows:
        raise UserError(
            "the file has no measurements",
            expected="at least one row",
            found="only a header line",
            where=table.path,
            fix=DOWNLOAD_AGAIN,
        )
    for number, row in enumerate(table.rows):
        yield Row(row, table.where(number))
