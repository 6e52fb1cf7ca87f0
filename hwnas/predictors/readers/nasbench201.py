"""A CSV of NAS-Bench-201 cells as strings (column `arch`), every other column in percent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hwnas.core.csv_data import names_of, read_csv, separator
from hwnas.core.errors import UserError
from hwnas.interfaces import Reader, Table
from hwnas.predictors.records import OTHER_READER, csv_columns, table_of
from hwnas.spaces.cells import cell_view
from hwnas.spaces.choice import Value
from hwnas.spaces.space import SearchSpace

__all__ = ["READER"]


def _matches(head: str) -> bool:
    delimiter, rest = separator(head, ["arch"])
    lines = rest.splitlines()
    return len(lines) > 1 and "arch" in names_of(lines[0], delimiter) and "|+|" in lines[1]


def _read(path: Path, space: SearchSpace) -> Table:
    """Reads cells `|op~0|+|op~0|op~1|+|...|`: inputs per node (2001.00326, released API)."""
    table = read_csv(path, ["arch"])
    views: list[Mapping[str, Value]] = []
    for index, row in enumerate(table.rows):
        view = cell_view(row["arch"])
        if view is None:
            raise UserError(
                "not a NAS-Bench-201 cell",
                expected="a cell, e.g. |nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|"
                "none~1|nor_conv_1x1~2|",
                found=f"the text {row['arch']!r:.200}",
                where=table.where(index),
                fix=OTHER_READER,
            )
        views.append(view)
    return table_of(space, views, csv_columns(table, besides=("arch",)), where=path)


READER = Reader(
    unit="percent",
    repeats="refuse",  # a benchmark lists each cell once
    target="cifar10_test_200ep",
    space=("nasbench201", 10),
    matches=_matches,
    read=_read,
)
