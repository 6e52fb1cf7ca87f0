"""A JSON list of DARTS cells (`normal`, `reduce`) with stand-alone top-1 in percent."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from hwnas.core.errors import UserError
from hwnas.core.store import read_json
from hwnas.core.text import kind_of
from hwnas.interfaces import Reader, Table
from hwnas.predictors.records import OTHER_READER, OTHER_SPACE, number, table_of
from hwnas.spaces.choice import Value
from hwnas.spaces.space import SearchSpace

__all__ = ["READER"]


def _matches(head: str) -> bool:
    return re.match(r'\s*\[\s*\{\s*("index"\s*:\s*\d+\s*,\s*)?"normal"', head) is not None


def _read(path: Path, space: SearchSpace) -> Table:
    """Reads cells as lists of [operator, input], in pairs per node or one after the other."""
    rows = read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(
            "not a list of DARTS cells",
            expected="a JSON list of objects with `normal`, `reduce` and `top1`",
            found=kind_of(rows) if not isinstance(rows, list) else "a list with other entries",
            where=path,
            fix=OTHER_READER,
        )
    places = [f"{path}, entry {i}" for i in range(len(rows))]
    views = [_view(row, space, where=where) for row, where in zip(rows, places, strict=True)]
    top1 = [[number(r.get("top1"), where=where)] for r, where in zip(rows, places, strict=True)]
    return table_of(space, views, {"top1": top1}, where=path)


def _view(row: dict[str, Any], space: SearchSpace, *, where: str) -> dict[str, Value]:
    text = json.dumps({cell: row[cell] for cell in ("normal", "reduce") if cell in row})
    codes = space.macro.codes_of(text)
    if codes is None:
        raise UserError(
            "the archs belong to another space",
            expected="the space darts",
            found=f"the space {space.name}",
            where=where,
            fix=OTHER_SPACE,
        )
    return space.view(space.arch(codes))


READER = Reader(
    unit="percent",
    repeats="average",
    target="top1",
    space=("darts", 10),
    matches=_matches,
    read=_read,
)
