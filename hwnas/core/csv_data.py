"""Reads CSV files as people write them, through Excel too: UTF-8 with or without a byte order mark,
columns separated by commas, semicolons or tabs, `sep=;` in the first line, decimal commas."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hwnas.core.confined import read_regular
from hwnas.core.errors import UserError

__all__ = ["CsvTable", "read_csv", "separator"]

MAX_BYTES = 256 * 1024 * 1024
SEPARATORS = ",;\t"
DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+(e[-+]?\d+)?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class CsvTable:
    """A header and rows of stripped cells. `lines`: the line of each row in the file."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    lines: tuple[int, ...]
    delimiter: str

    def decimal(self, row: int, column: str) -> str:
        """A number as text; a decimal comma is a point where commas do not separate columns."""
        cell = self.rows[row][column]
        is_comma = self.delimiter != "," and DECIMAL_COMMA.fullmatch(cell)
        return cell.replace(",", ".") if is_comma else cell

    def where(self, row: int) -> str:
        """The place of a row, for messages."""
        return f"{self.path}:{self.lines[row]}"


def separator(text: str, columns: Sequence[str]) -> tuple[str, str]:
    """What separates columns, and the text from the header on; `columns`: one of them is there."""
    head, _, rest = text.partition("\n")
    if head.startswith("sep=") and len(head.strip("\r\n")) == len("sep=;"):
        return head[len("sep=")], rest
    for one in SEPARATORS:
        if set(columns) & {cell.strip(' "\r') for cell in head.split(one)}:
            return one, text
    return ",", text


def read_csv(path: Path, columns: Sequence[str]) -> CsvTable:
    """The table in a file; `columns`: one of them must be there.

    Raises:
        UserError: cannot be read, is no CSV, has no such column, or a row has more cells than the
            header.
    """
    try:
        text = read_regular(path, at_most=MAX_BYTES).decode("utf-8-sig")
        delimiter, rest = separator(text, columns)
        skipped = text.count("\n") - rest.count("\n")
        reader = csv.reader(io.StringIO(rest, newline=""), delimiter=delimiter)
        listed = [([cell.strip() for cell in row], reader.line_num + skipped) for row in reader]
    except FileNotFoundError as error:
        raise UserError("file not found", where=path) from error
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        fix = "save it as CSV in UTF-8" if isinstance(error, UnicodeDecodeError) else None
        raise UserError("not a CSV file", found=str(error), where=path, fix=fix) from error
    filled = [(cells, line) for cells, line in listed if any(cells)]
    header = tuple(filled[0][0]) if filled else ()
    if not set(columns) & set(header):
        raise UserError(
            f"no column {' or '.join(map(repr, columns))}",
            expected="a header with it, separated by commas, semicolons or tabs",
            found=(rest.partition("\n")[0].strip() or "an empty file")[:200],
            where=path,
            fix="write the table as CSV with commas, in UTF-8",
        )
    if len(set(header) - {""}) < len([name for name in header if name]):
        raise UserError("two columns have the same name", found=", ".join(header), where=path)
    rows = []
    for cells, line in filled[1:]:
        if len(cells) > len(header) and any(cells[len(header) :]):
            raise UserError(
                "a row has more cells than the header",
                expected=len(header),
                found=len(cells),
                where=f"{path}:{line}",
                fix="quote cells that hold the separator" if delimiter == "," else None,
            )
        rows.append(dict(zip(header, [*cells, *[""] * len(header)], strict=False)))
    return CsvTable(path, header, tuple(rows), tuple(line for _, line in filled[1:]), delimiter)
