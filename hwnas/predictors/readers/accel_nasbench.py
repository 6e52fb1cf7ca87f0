"""A CSV of Accel-NASBench: archs of `mnasnet` as digits, ImageNet accuracies in percent."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from hwnas.core.confined import read_regular
from hwnas.core.errors import UserError
from hwnas.interfaces import Reader, Table
from hwnas.predictors.records import number, table_of
from hwnas.spaces.choice import Value
from hwnas.spaces.mnasnet import SE_SHARE
from hwnas.spaces.space import SearchSpace

__all__ = ["READER"]

MAX_BYTES = 256 * 1024 * 1024
DIGITS = {"e": "expand", "k": "kernel", "l": "depth", "se": "se"}
"""Columns with one digit per stage, and the choice that the digits belong to."""
INDEX = "index"  # number of an arch in the benchmark


def _matches(head: str) -> bool:
    columns = head.partition("\n")[0].strip().split(",")
    return {"top1", *DIGITS} <= set(columns)


def _read(path: Path, space: SearchSpace) -> Table:
    """All columns except digits and index are numbers; empty cells have no value.

    Source: 2404.08005 and the definition of the networks in
    github.com/afzalxo/ANB-DatasetCollection.
    """
    try:
        text = read_regular(path, at_most=MAX_BYTES).decode("utf-8-sig")
        table = csv.DictReader(io.StringIO(text, newline=""))
        rows = list(table)
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise UserError("not a CSV file", found=str(error), where=path) from error
    names = list(table.fieldnames or ())
    if not {*DIGITS} <= set(names):
        raise UserError(
            "no file of Accel-NASBench",
            expected=f"columns {', '.join(DIGITS)}",
            found=", ".join(names)[:200],
            where=path,
        )
    measured = [name for name in names if name not in (*DIGITS, INDEX)]
    views, columns = [], {name: list[list[float]]() for name in measured}
    n_stages = sum(choice.role == "depth" for choice in space.choices)
    for line, row in enumerate(rows, start=2):
        where = f"{path}:{line}"
        views.append(_view(row, n_stages, where=where))
        for name in measured:
            cell = row[name]
            if cell is None:
                raise UserError("a line is too short", expected=f"{len(names)} cells", where=where)
            values = [] if cell == "" else [number(cell, where=f"{where}, {name}")]
            columns[name].append(values)
    return table_of(space, views, columns, where=path)


def _view(row: dict[str, str], n_stages: int, *, where: str) -> dict[str, Value]:
    view: dict[str, Value] = {}
    for column, choice in DIGITS.items():
        digits = row[column] or ""
        if not re.fullmatch(rf"[0-9]{{{n_stages}}}", digits):
            raise UserError(
                "the arch belongs to another space",
                expected=f"{n_stages} digits in column {column}",
                found=digits,
                where=where,
            )
        for stage, digit in enumerate(map(int, digits)):
            is_se = choice == "se"
            view[f"stage{stage}.{choice}"] = SE_SHARE * digit if is_se else digit
    return view


READER = Reader(
    unit="percent",
    repeats="average",  # some archs were trained twice
    target="top1",
    space=("mnasnet", 1000),
    matches=_matches,
    read=_read,
)
