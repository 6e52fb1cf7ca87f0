"""A CSV of Accel-NASBench: archs of `mnasnet` as digits, ImageNet accuracies in percent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from hwnas.core.csv_data import names_of, read_csv, separator
from hwnas.core.errors import UserError
from hwnas.interfaces import Reader, Table
from hwnas.predictors.records import OTHER_READER, OTHER_SPACE, csv_columns, table_of
from hwnas.spaces.choice import Value
from hwnas.spaces.mnasnet import SE_SHARE
from hwnas.spaces.space import SearchSpace

__all__ = ["READER"]

DIGITS = {"e": "expand", "k": "kernel", "l": "depth", "se": "se"}
"""Columns with one digit per stage, and the choice that the digits belong to."""


def _matches(head: str) -> bool:
    delimiter, rest = separator(head, ["top1"])
    return {"top1", *DIGITS} <= set(names_of(rest.partition("\n")[0], delimiter))


def _read(path: Path, space: SearchSpace) -> Table:
    """All columns except digits and index are numbers; empty cells have no value.

    Source: 2404.08005 and the definition of the networks in
    github.com/afzalxo/ANB-DatasetCollection.
    """
    table = read_csv(path, [*DIGITS])
    if missing := [name for name in DIGITS if name not in table.columns]:
        raise UserError(
            "not a file of Accel-NASBench",
            expected=f"columns {', '.join(DIGITS)}",
            found=f"no column {', '.join(missing)}",
            where=path,
            fix=OTHER_READER,
        )
    n_stages = sum(choice.role == "depth" for choice in space.choices)
    views = [_view(row, n_stages, where=table.where(index)) for index, row in enumerate(table.rows)]
    return table_of(space, views, csv_columns(table, besides=tuple(DIGITS)), where=path)


def _view(row: Mapping[str, str], n_stages: int, *, where: str) -> dict[str, Value]:
    view: dict[str, Value] = {}
    for column, choice in DIGITS.items():
        digits = row[column]
        if not re.fullmatch(rf"[0-9]{{{n_stages}}}", digits):
            raise UserError(
                "the arch belongs to another space",
                expected=f"{n_stages} digits in column {column}",
                found=f"the text {digits!r:.80}",
                where=where,
                fix=OTHER_SPACE,
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
