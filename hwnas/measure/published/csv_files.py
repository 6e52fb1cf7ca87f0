"""Reads CSV files of published measurements as untrusted input."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hwnas.core.confined import read_regular
from hwnas.core.errors import UserError

__all__ = ["Row", "read_csv"]

MAX_BYTES = 64 * 1024**2
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
            raise self.malformed(column)
        return cell

    def number(self, column: str) -> float:
        """A finite number."""
        try:
            found = float(self.cells[column])
        except ValueError:
            raise self.malformed(column) from None
        if not math.isfinite(found):
            raise self.malformed(column)
        return found

    def positive(self, column: str) -> float:
        """A finite number above 0."""
        found = self.number(column)
        if found <= 0:
            raise self.malformed(column)
        return found

    def count(self, column: str) -> int:
        """A whole number of 1 or more."""
        found = self.number(column)
        if found != int(found) or not 1 <= found <= MAX_COUNT:
            raise self.malformed(column)
        return int(found)

    def flag(self, column: str) -> bool:
        """0 or 1."""
        if self.cells[column] not in ("0", "1"):
            raise self.malformed(column)
        return self.cells[column] == "1"

    def malformed(self, column: str) -> UserError:
        """The error that names this cell."""
        return UserError(
            f"malformed value in column `{column}`",
            found=f"{self.cells[column]!r:.80}",
            where=self.where,
        )


def read_csv(path: Path, file: str, columns: Sequence[str]) -> Iterator[Row]:
    """The lines of a CSV file (or of `file` in a folder) that has at least these columns.

    Raises:
        UserError: missing, too large, no text, without one of the columns, or without lines.
    """
    path = path / file if path.is_dir() else path
    try:
        content = read_regular(path, at_most=MAX_BYTES).decode()
        reader = csv.DictReader(io.StringIO(content, newline=""), strict=True)
        if lost := [name for name in columns if name not in (reader.fieldnames or ())]:
            raise UserError("not a file of this source", expected=", ".join(lost), where=path)
        lines = list(reader)
    except FileNotFoundError as error:
        raise UserError("file not found", where=path) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError("cannot read the file", found=error, where=path) from error
    if not lines:
        raise UserError("no measurements", where=path)
    for number, line in enumerate(lines, start=2):
        if None in line or None in line.values():
            raise UserError("a line with too many or too few cells", where=f"{path}:{number}")
        yield Row(line, f"{path}:{number}")
