"""A CSV of TransNAS-Bench-101's micro space (column `arch`), accuracies in percent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from hwnas.core.csv_data import names_of, read_csv, separator
from hwnas.core.errors import UserError
from hwnas.interfaces import Reader, Table
from hwnas.predictors.records import OTHER_READER, csv_columns, table_of
from hwnas.spaces.choice import Value
from hwnas.spaces.space import SearchSpace

__all__ = ["READER"]

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3")
"""Operators by digit (2105.11871), in the terms of `nats_topology`."""
EDGES = ("edge01", "edge02", "edge12", "edge03", "edge13", "edge23")
FORM = re.compile(r"\d+-\d+-([0-3])_([0-3])([0-3])_([0-3])([0-3])([0-3])")


def _matches(head: str) -> bool:
    delimiter, rest = separator(head, ["arch"])
    lines = rest.splitlines()
    if len(lines) < 2 or "arch" not in (names := names_of(lines[0], delimiter)):
        return False
    values = names_of(lines[1], delimiter)
    return len(values) == len(names) and FORM.fullmatch(values[names.index("arch")]) is not None


def _read(path: Path, space: SearchSpace) -> Table:
    """Reads strings `64-41414-a_bc_def`: skeleton, and the operators into nodes 1, 2 and 3.

    The cell is one of `nats_topology` without pooling. The skeleton is the same for all archs of
    the micro space, so it is not read: networks of the table have the skeleton of `space`.
    """
    table = read_csv(path, ["arch"])
    views: list[Mapping[str, Value]] = []
    for index, row in enumerate(table.rows):
        found = FORM.fullmatch(row["arch"])
        if found is None:
            raise UserError(
                "not a cell of TransNAS-Bench-101's micro space",
                expected="a string such as 64-41414-1_23_013, with digits from 0 to 3",
                found=f"the string {row['arch']!r:.200}",
                where=table.where(index),
                fix=OTHER_READER,
            )
        ops = (OPS[int(digit)] for digit in found.groups())
        views.append(dict(zip(EDGES, ops, strict=True)))
    return table_of(space, views, csv_columns(table, besides=("arch",)), where=path)


READER = Reader(
    unit="percent",
    repeats="refuse",  # a benchmark lists each cell once
    target="acc",
    space=("nats_topology", 47),  # scene classification
    matches=_matches,
    read=_read,
)
