"""A JSON list of recipes of NAS-Bench-NLP with validation losses in nats per token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.core.errors import UserError
from hwnas.interfaces import Reader, Table
from hwnas.predictors.records import json_rows, number, other_space, table_of
from hwnas.spaces.choice import Value
from hwnas.spaces.nasbench_nlp import RecipeCells
from hwnas.spaces.nlp_recipes import read_recipe
from hwnas.spaces.space import SearchSpace

__all__ = ["READER"]

N_WORDS = 33_278
"""Words of WikiText-2."""
LOSSES = ("val_loss", "test_loss")
NUMBERS = ("params", "s_per_epoch")


def _matches(head: str) -> bool:
    return re.match(r'\s*\[\s*\{\s*("id"\s*:\s*\d+\s*,\s*)?"recipe"\s*:', head) is not None


def _read(path: Path, space: SearchSpace) -> Table:
    """Reads objects with `recipe`, `val_loss` (per epoch), and maybe `test_loss` and costs.

    Columns: `minus_val_loss` is minus the lowest validation loss of all epochs, `minus_test_loss`
    minus the test loss of the same epoch. `params` and `s_per_epoch` are the published costs, in
    their own units, to be used as proxies.
    """
    if not isinstance(space.macro, RecipeCells):
        raise other_space(space, "nasbench_nlp", where=path)
    rows = json_rows(path, what="recipes", keys="`recipe` and `val_loss`")
    views: list[dict[str, Value]] = []
    columns: dict[str, list[list[float]]] = {f"minus_{name}": [] for name in LOSSES}
    columns |= {name: [] for name in NUMBERS}
    for i, row in enumerate(rows):
        where = f"{path}, entry {i}" + (f" (id {row['id']})" if "id" in row else "")
        cell = read_recipe(row.get("recipe"), where=where)
        views.append(space.view(space.arch(space.macro.codes_of_cell(cell))))
        for name, value in _losses(row, where=where).items():
            columns[f"minus_{name}"].append([] if value is None else [-value])
        for name in NUMBERS:
            place = f"{where}, {name}"
            columns[name].append([number(row[name], where=place)] if name in row else [])
    kept = {name: found for name, found in columns.items() if any(found)}
    return table_of(space, views, kept, where=path)


def _losses(row: dict[str, Any], *, where: str) -> dict[str, float | None]:
    """The lowest validation loss, and the test loss of its epoch if there is one."""
    val = _per_epoch(row.get("val_loss"), where=f"{where}, val_loss")
    best = int(np.argmin(val))
    if "test_loss" not in row:
        return {"val_loss": val[best], "test_loss": None}
    test = _per_epoch(row["test_loss"], where=f"{where}, test_loss")
    if len(test) != len(val):
        raise UserError(
            "the losses are not of the same epochs",
            expected=f"{len(val)} numbers, as in val_loss",
            found=f"{len(test)} numbers",
            where=f"{where}, test_loss",
            fix="correct the entry, or remove its test_loss",
        )
    return {"val_loss": val[best], "test_loss": test[best]}


def _per_epoch(values: Any, *, where: str) -> Sequence[float]:
    """The losses of all epochs; a single number is that of one epoch."""
    found = values if isinstance(values, list) else [values]
    if not found:
        raise UserError(
            "the entry has no loss",
            expected="a number per epoch",
            found="an empty list",
            where=where,
            fix="remove the entry from the file",
        )
    return [number(value, where=where) for value in found]


READER = Reader(
    unit="minus_loss",
    repeats="average",
    target="minus_val_loss",
    space=("nasbench_nlp", N_WORDS),
    matches=_matches,
    read=_read,
)
