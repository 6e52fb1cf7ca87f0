"""A CSV of NAS-Bench-201 cells as strings (column `arch`), every other column in percent."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from hwnas.core.confined import read_regular
from hwnas.core.errors import UserError
from hwnas.core.sheets import read_sheet, sheet_text
from hwnas.interfaces import Reader, Table
from hwnas.predictors.records import number, table_of
from hwnas.spaces.choice import Value
from hwnas.spaces.space import SearchSpace

__all__ = ["READER"]

MAX_BYTES = 256 * 1024 * 1024
INDEX = "index"  # the number of a cell in the benchmark


def _matches(head: str) -> bool:
    try:
        sheet = read_sheet(head, "arch")
    except csv.Error:
        return False
    return "arch" in sheet.names and bool(sheet.rows) and "|+|" in sheet.rows[0][1]["arch"]


def _read(path: Path, space: SearchSpace) -> Table:
    """Reads cells `|op~0|+|op~0|op~1|+|...|`: inputs per node (2001.00326, released API)."""
    try:
        text = sheet_text(read_regular(path, at_most=MAX_BYTES))
        sheet = read_sheet(text, "arch")
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise UserError("not a CSV file", found=str(error), where=path) from error
    if "arch" not in sheet.names:
        raise UserError(
            "no column 'arch'",
            expected="a header with arch, separated by commas",
            found=text.strip().partition("\n")[0].strip()[:200],
            where=path,
            fix="write the table as CSV with commas, in UTF-8",
        )
    views, columns = [], dict[str, list[list[float]]]()
    for line, row in sheet.rows:
        where = f"{path}:{line}"
        views.append(_view(row["arch"], where=where))
        for name, text in row.items():
            if name not in ("arch", INDEX):
                cells = columns.setdefault(name, [])
                cells.append([] if text == "" else [number(text, where=f"{where}, {name}")])
    return table_of(space, views, columns, where=path)


def _view(cell: str, *, where: str) -> dict[str, Value]:
    view: dict[str, Value] = {}
    for node, inputs in enumerate(cell.split("+"), start=1):
        if not re.fullmatch(r"\|(\w+~\d\|)+", inputs):
            raise UserError(
                "not a NAS-Bench-201 cell", expected="|op~0|+|op~0|op~1|", found=cell, where=where
            )
        for edge in inputs.strip("|").split("|"):
            op, source = edge.split("~")
            view[f"edge{source}{node}"] = op
    return view


READER = Reader(
    unit="percent",
    repeats="refuse",  # a benchmark lists each cell once
    target="cifar10_test_200ep",
    space=("nasbench201", 10),
    matches=_matches,
    read=_read,
)
