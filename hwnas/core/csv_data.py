"""Reads CSV files written by people and spreadsheets.

Encodings: UTF-8, or UTF-16 with a byte-order mark. Separators: comma, semicolon or tab; a first
line `sep=;` can specify it. Decimal commas are accepted if the separator is not a comma.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hwnas.core.confined import read_regular
from hwnas.core.decimals import with_point
from hwnas.core.errors import UserError, did_you_mean

__all__ = ["CsvTable", "names_of", "read_csv", "separator", "text_of"]

MAX_BYTES = 64 * 1024 * 1024
_PERMISSIONS = "check the permissions of the file"
MAX_ROWS, MAX_CELLS, MAX_COLUMNS = 1_000_000, 8_000_000, 10_000
SEPARATORS = ",;\t"
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class CsvTable:
    """A header and rows of stripped cells. `lines`: line number of each row in the file."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    lines: tuple[int, ...]
    delimiter: str

    def decimal(self, row: int, column: str) -> str:
        """Text of a numeric cell; a decimal comma becomes a point unless commas separate cells."""
        cell = self.rows[row][column]
        return cell if self.delimiter == "," else with_point(cell) or cell

    def where(self, row: int) -> str:
        """File and line of a row, for messages."""
        return f"{self.path}:{self.lines[row]}"


def text_of(data: bytes, errors: str = "strict") -> str:
    """Decodes UTF-8, or UTF-16 with a byte-order mark (Excel: "Unicode text"); normalises newlines.

    Raises:
        UnicodeDecodeError: the data is neither.
    """
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
    return data.decode(encoding, errors).replace("\r\n", "\n").replace("\r", "\n")


def separator(text: str, columns: Iterable[str]) -> tuple[str, str]:
    """Detects the column separator; returns it, and the text from the header line on.

    Without a line `sep=;`, it is the first separator that splits the header into names of which one
    is in `columns`; a comma if there is none.
    """
    text = text.lstrip("\n")
    head, _, rest = text.partition("\n")
    if given := re.fullmatch(r"sep=(.)", head):
        return given[1], rest
    for one in SEPARATORS:
        if {*columns} & {*names_of(head, one)}:
            return one, text
    return ",", text


def read_csv(path: Path, columns: Sequence[str], also: Sequence[str] = ()) -> CsvTable:
    """Reads a CSV file.

    Args:
        path: the file.
        columns: names in lower case. The header must have at least one of them, in any case.
        also: further names in lower case, which the header may have in any case.

    Raises:
        UserError: the file cannot be read, is too large, is not CSV, has no such column, or a row
            has more cells than the header.
    """
    try:
        text = text_of(read_regular(path, at_most=MAX_BYTES))
        _check_size(text, SEPARATORS, path)
        delimiter, rest = separator(text, columns)
        _check_size(rest, delimiter, path)
        skipped = text.count("\n") - rest.count("\n")
        reader = csv.reader(io.StringIO(rest, newline=""), delimiter=delimiter)
        listed = [([cell.strip() for cell in row], reader.line_num + skipped) for row in reader]
    except FileNotFoundError as error:
        raise UserError(
            "file not found",
            expected="a CSV file with a header line",
            where=path,
            fix=did_you_mean(path.name, _files_beside(path), otherwise="check the path"),
        ) from error
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        fix = _PERMISSIONS if isinstance(error, OSError) else "save the table as CSV in UTF-8"
        raise UserError(
            "cannot read the file as CSV",
            expected="a CSV table in UTF-8",
            found=str(error),
            where=path,
            fix=fix,
        ) from error
    filled = [(cells, line) for cells, line in listed if any(cells)]
    known = {*columns, *also}
    header = tuple(_known(name, known) for name in filled[0][0]) if filled else ()
    if not set(columns) & set(header):
        raise UserError(
            f"no column {' or '.join(map(repr, columns))}",
            expected="a header line with this column, separated by commas, semicolons or tabs",
            found=(rest.partition("\n")[0].strip() or "an empty file")[:200],
            where=path,
            fix="add the column, or save the table as CSV with commas, in UTF-8",
        )
    _require_distinct(header, path)
    rows = []
    for cells, line in filled[1:]:
        if len(cells) > len(header) and any(cells[len(header) :]):
            raise UserError(
                "a row has more cells than the header",
                expected=f"{len(header)} cells",
                found=f"{len(cells)} cells",
                where=f"{path}:{line}",
                fix="quote cells that hold the separator" if delimiter == "," else None,
            )
        rows.append(dict(zip(header, [*cells, *[""] * len(header)], strict=False)))
    return CsvTable(path, header, tuple(rows), tuple(line for _, line in filled[1:]), delimiter)


def _require_distinct(header: Sequence[str], path: Path) -> None:
    equal = sorted({name for name in header if name and header.count(name) > 1})
    if equal:
        raise UserError(
            "two columns have the same name",
            expected="a different name for each column",
            found=f"more than one column {', '.join(map(repr, equal))}",
            where=path,
            fix="rename or remove one of the columns",
        )


def _files_beside(path: Path) -> list[str]:
    """Up to 1,000 names in the folder of a missing file; none if there is no such folder."""
    try:
        return [one.name for one in itertools.islice(path.parent.iterdir(), 1000)]
    except (OSError, ValueError):
        return []


def _check_size(text: str, separators: str, path: Path) -> None:
    """Refuses text that would take gigabytes as cells, before it is split."""
    n_rows, n_cells = text.count("\n"), sum(map(text.count, f"{separators}\n"))
    n_columns = sum(map(text.lstrip(f"{separators}\n ").partition("\n")[0].count, separators))
    for what, n, most in (
        ("rows", n_rows, MAX_ROWS),
        ("cells", n_cells, MAX_CELLS),
        ("columns", n_columns, MAX_COLUMNS),
    ):
        if n > most:
            raise UserError(
                "a CSV file is too large",
                expected=f"at most {most:,} {what}",
                found=f"about {n:,} {what}",
                where=path,
                fix="remove the rows and columns that are not needed",
            )


def _known(name: str, columns: Collection[str]) -> str:
    return name.lower() if name.lower() in columns else name


def names_of(line: str, delimiter: str) -> list[str]:
    """Names of columns in a header, in lower case; empty if the line is not CSV."""
    try:
        rows = [*csv.reader([line], delimiter=delimiter)]
    except csv.Error:
        return []
    return [cell.strip().lower() for row in rows for cell in row]
