"""Tables as spreadsheets write them: CSV in their encodings, separators and decimals."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hwnas.core.decimals import with_point

__all__ = ["Sheet", "read_sheet", "sheet_text"]

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
SEPARATORS = ",;\t"


@dataclass(frozen=True)
class Sheet:
    """Names of the columns; cells of the rows that are not empty, with their lines in the file."""

    names: tuple[str, ...]
    rows: Sequence[tuple[int, Mapping[str, str]]]


def sheet_text(data: bytes, errors: str = "strict") -> str:
    """The text of a file: UTF-8, or UTF-16 with its mark (what Excel calls Unicode text).

    Raises:
        UnicodeDecodeError: it is neither.
    """
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
    return data.decode(encoding, errors)


def read_sheet(text: str, column: str) -> Sheet:
    """A table with a header in which `column` is one of the names, in upper or lower case.

    Commas, semicolons or tabs separate columns; Excel may say so in a first line `sep=;`. Where
    commas do not, they may be decimal points. Blanks around cells do not count, nor do empty rows
    and columns. If there is no such column, the names are what commas separate.

    Raises:
        csv.Error: quotes that do not end, or the like.
    """
    lines = text.splitlines(keepends=True)
    first = next((i for i, line in enumerate(lines) if line.strip()), 0)
    given = re.fullmatch(r"sep=(.)[\r\n]*", lines[first]) if lines else None
    first += given is not None
    header = lines[first] if first < len(lines) else ""
    separators = given[1] if given else SEPARATORS
    found = [one for one in separators if column in map(str.lower, _cells(header, one))]
    separator = found[0] if found else separators[0]
    reader = csv.reader(io.StringIO("".join(lines[first:]), newline=""), delimiter=separator)
    names: list[str] = []
    rows = []
    for cells in reader:
        plain = [cell.strip() for cell in cells]
        if not names:
            names = [column if name.lower() == column else name for name in plain]
        elif any(plain):
            if separator != ",":
                plain = [with_point(cell) or cell for cell in plain]
            plain += [""] * (len(names) - len(plain))
            row = {name: cell for name, cell in zip(names, plain, strict=False) if name}
            rows.append((first + reader.line_num, row))
    return Sheet(tuple(filter(None, names)), rows)


def _cells(line: str, separator: str) -> list[str]:
    return [cell.strip() for row in csv.reader([line], delimiter=separator) for cell in row]
