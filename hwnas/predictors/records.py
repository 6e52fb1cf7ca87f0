"""Labelled archs of a reader: checked, averaged and converted to fractions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.core.csv_data import CsvTable
from hwnas.core.decimals import with_point
from hwnas.core.errors import UserError, did_you_mean
from hwnas.core.store import read_json
from hwnas.core.text import in_words, kind_of
from hwnas.interfaces import Column, FloatArray, Reader, Table
from hwnas.spaces.choice import Value
from hwnas.spaces.space import Codes, SearchSpace

__all__ = [
    "OTHER_READER",
    "OTHER_SPACE",
    "Records",
    "csv_columns",
    "distinct",
    "json_rows",
    "number",
    "other_space",
    "record_set",
    "table_of",
]

OTHER_READER = "select the format of this file: --reader, or `reader` in the configuration"
OTHER_SPACE = "give the space of these archs: --space, or `space` in the configuration"
INDEX = "index"  # number of an arch in a benchmark
RANGES: Mapping[str, tuple[float, float]] = {
    "percent": (0, 100),
    "fraction": (0, 1),
    "minus_loss": (-100, 0),
}
"""Smallest and largest value of each unit of `Reader`. Losses above 100 are no log-likelihoods."""


@dataclass(frozen=True)
class Records:
    """Distinct archs of one space with one score each.

    codes: [n, d], in the order of the file.
    scores: [n], fractions in [0, 1], or minus losses.
    target: name of their column.
    n_averaged: number of archs whose score is the mean of several values.
    """

    space: SearchSpace
    codes: Codes
    scores: FloatArray
    target: str
    n_averaged: int

    def __len__(self) -> int:
        return len(self.codes)


def table_of(
    space: SearchSpace,
    views: Sequence[Mapping[str, Value]],
    values: Mapping[str, Sequence[Sequence[float]]],
    *,
    where: object,
) -> Table:
    """Builds a table with one row per view.

    views: maps the names of choices to their values; a missing choice gets its first value.
    values: `values[column][row]` lists the numbers of a row.

    Raises:
        UserError: a value that the choice does not have, so the archs belong to another space.
    """
    known = [{value: code for code, value in enumerate(c.values)} for c in space.choices]
    names = [choice.name for choice in space.choices]
    codes = np.zeros((len(views), len(known)), dtype=np.int16)
    for row, view in enumerate(views):
        for name, value in view.items():
            column = names.index(name) if name in names else None
            is_value = isinstance(value, (int, float, str))  # a list has no hash
            if column is None or not is_value or value not in known[column]:
                choice = None if column is None else space.choices[column]
                raise UserError(
                    "the arch belongs to another space",
                    expected=f"one of the values {in_words(choice.values)} of {name}"
                    if choice
                    else f"one of the choices {', '.join(names)}",
                    found=f"the value {value!r:.80}" if choice else f"the choice {name}",
                    where=f"{where}, arch {row}, read as an arch of {space.id}",
                    fix=OTHER_SPACE,
                )
            codes[row, column] = known[column][value]
    columns = {
        name: Column(
            np.repeat(np.arange(len(lists)), [len(found) for found in lists]),
            np.array([value for found in lists for value in found], dtype=np.float64),
        )
        for name, lists in values.items()
    }
    return Table(space, space.normalise(codes), columns)


def csv_columns(table: CsvTable, *, besides: Sequence[str]) -> dict[str, list[list[float]]]:
    """The columns of numbers, for `table_of`; an empty cell has no value.

    besides: columns that are not numbers; `index` and columns without a name are not read either.

    Raises:
        UserError: a cell is not a number.
    """
    names = [name for name in table.columns if name not in (*besides, INDEX, "")]
    columns: dict[str, list[list[float]]] = {name: [] for name in names if table.rows}
    for index in range(len(table.rows)):
        for name in names:
            text = table.decimal(index, name)
            where = f"{table.where(index)}, {name}"
            columns[name].append([] if text == "" else [number(text, where=where)])
    return columns


def json_rows(path: Path, *, what: str, keys: str) -> list[dict[str, Any]]:
    """The objects of a JSON list.

    what, keys: what the file lists, and the keys of an object, for errors.

    Raises:
        UserError: the file is not a list of objects.
    """
    rows = read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(
            f"not a list of {what}",
            expected=f"a JSON list of objects with {keys}",
            found=kind_of(rows) if not isinstance(rows, list) else "a list with other entries",
            where=path,
            fix=OTHER_READER,
        )
    return rows


def other_space(space: SearchSpace, expected: str, *, where: object) -> UserError:
    """The error for archs that do not belong to `space`; expected: the name of their space."""
    return UserError(
        "the archs belong to another space",
        expected=f"the space {expected}",
        found=f"the space {space.name}",
        where=where,
        fix=OTHER_SPACE,
    )


def number(value: object, *, where: object) -> float:
    """A finite number from a file.

    Raises:
        UserError: the value is not a finite number.
    """
    try:
        found = float(value)  # type: ignore[arg-type]  # refused below
    except (TypeError, ValueError):
        found = float("nan")
    if isinstance(value, bool) or not np.isfinite(found):
        text = value.strip().removesuffix("%") if isinstance(value, str) else ""
        plain = with_point(text) or (text if text != value else None)
        fix = None if plain is None else f"write {plain}"
        if plain is None and re.search(r"\d", text):
            fix = (
                "write digits with a decimal point, without a unit and without thousands separators"
            )
        raise UserError("not a finite number", found=repr(value), where=where, fix=fix)
    return found


def record_set(table: Table, reader: Reader, target: str | None, *, where: object) -> Records:
    """One score per distinct arch, from one column of a table.

    Raises:
        UserError: no such column, a value outside the range of the unit, several values of an arch
            although the reader refuses them, or all scores are equal (or there is only one arch).
    """
    target = target or reader.target or next(iter(table.columns), "")
    codes, means, repeats = distinct(table, target, where=where)
    values = table.columns[target].values
    least, most = RANGES[reader.unit]
    outside = ~((values >= least) & (values <= most))
    if outside.any():
        raise UserError(
            f"the column {target} has values outside the range of its unit ({reader.unit})",
            expected=f"values in [{least:g}, {most:g}]",
            found=f"{int(outside.sum())} of {len(values)} values outside it, the first"
            f" {values[outside][0]:g}",
            where=where,
            fix="correct these values, or select another column",
        )
    for row, repeated in repeats.items():
        if reader.repeats == "refuse" and np.ptp(repeated) > 0:
            raise UserError(
                "the file has different values for one arch",
                expected="one value per arch in this format",
                found=f"the values {', '.join(f'{value:g}' for value in repeated)} "
                f"for the arch with the codes {','.join(map(str, codes[row]))}",
                where=where,
                fix="keep one of the rows of this arch",
            )
    if np.ptp(means) == 0:
        raise UserError(
            f"all values of the column {target} are equal, so archs cannot be ranked by it",
            expected="at least two different values",
            found=f"only the value {means[0]:g}",
            where=where,
            fix="select another column, or add archs with other values",
        )
    scores = means / 100 if reader.unit == "percent" else means
    return Records(table.space, codes, scores, target, len(repeats))


def distinct(
    table: Table, name: str, *, where: object
) -> tuple[Codes, FloatArray, dict[int, FloatArray]]:
    """Averages the values of each arch in a column.

    Returns the distinct archs [n, d] of the column in order, the means of their values [n], and all
    values of each arch that has several, by index of the arch.
    Raises:
        UserError: no such column, or one without values.
    """
    if name not in table.columns:
        raise UserError(
            f"no column {name!r}",
            expected=f"one of {', '.join(table.columns) or '(no columns of numbers)'}",
            where=where,
            fix=did_you_mean(name, tuple(table.columns), otherwise="select another column"),
        )
    column = table.columns[name]
    if len(column.values) == 0:
        raise UserError(
            f"the column {name} has no values",
            expected="a value for at least two archs",
            found="none",
            where=where,
            fix="select another column",
        )
    codes = table.codes[column.rows]
    _, first, group = np.unique(codes, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    row = place[group]
    counts = np.bincount(row, minlength=len(order))
    means = np.bincount(row, column.values, minlength=len(order)) / np.maximum(counts, 1)
    by_row = np.argsort(row, kind="stable")
    ends = np.cumsum(counts)
    repeats = {
        int(i): column.values[by_row[ends[i] - counts[i] : ends[i]]]
        for i in np.flatnonzero(counts > 1)
    }
    return codes[first[order]], means, repeats
