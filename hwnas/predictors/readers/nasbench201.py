"""A CSV of NAS-Bench-201 cells as strings (column `arch`), every other column in percent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hwnas.core.csv_data import names_of, read_csv, separator
from hwnas.core.errors import UserError
from hwnas.interfaces import Reader, Table
from hwnas.predictors.records import number, table_of
from hwnas.spaces.cells import cell_view
from hwnas.spaces.choice import Value
from hwnas.spaces.space import SearchSpace

__all__ = ["READER"]

INDEX = "index"  # the number of a cell in the benchmark


def _matches(head: str) -> bool:
    delimiter, rest = separator(head, ["arch"])
    lines = rest.splitlines()
    return len(lines) > 1 and "arch" in names_of(lines[0], delimiter) and "|+|" in lines[1]


def _read(path: Path, space: SearchSpace) -> Table:
    """Reads cells `|op~0|+|op~0|op~1|+|...|`: inputs per node (2001.00326, released API)."""
    table = read_csv(path, ["arch"])
    views: list[Mapping[str, Value]] = []
    columns = dict[str, list[list[float]]]()
    names = [name for name in table.columns if name not in ("arch", INDEX, "")]
    for index, row in enumerate(table.rows):
        where = table.where(index)
        view = cell_view(row["arch"])
        if view is None:
            raise UserError(
                "not a NAS-Bench-201 cell",
                expected="|op~0|+|op~0|op~1|",
                found=row["arch"],
                where=where,
            )
        views.append(view)
        for name in names:
            text = table.decimal(index, name)
            values = [] if text == "" else [number(text, where=f"{where}, {name}")]
            columns.setdefault(name, []).append(values)
    return table_of(space, views, columns, where=path)


READER = Reader(
    unit="percent",
    repeats="refuse",  # a benchmark lists each cell once
    target="cifar10_test_200ep",
    space=("nasbench201", 10),
    matches=_matches,
    read=_read,
)
