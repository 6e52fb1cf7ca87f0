"""A JSON list of DARTS cells (`normal`, `reduce`) with stand-alone top-1 in percent."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from hwnas.interfaces import Reader, Table
from hwnas.predictors.records import json_rows, number, other_space, table_of
from hwnas.spaces.choice import Value
from hwnas.spaces.space import SearchSpace

__all__ = ["READER"]


def _matches(head: str) -> bool:
    return re.match(r'\s*\[\s*\{\s*("index"\s*:\s*\d+\s*,\s*)?"normal"', head) is not None


def _read(path: Path, space: SearchSpace) -> Table:
    """Reads cells as lists of [operator, input], in pairs per node or one after the other."""
    rows = json_rows(path, what="DARTS cells", keys="`normal`, `reduce` and `top1`")
    places = [f"{path}, entry {i}" for i in range(len(rows))]
    views = [_view(row, space, where=where) for row, where in zip(rows, places, strict=True)]
    top1 = [[number(r.get("top1"), where=where)] for r, where in zip(rows, places, strict=True)]
    return table_of(space, views, {"top1": top1}, where=path)


def _view(row: dict[str, Any], space: SearchSpace, *, where: str) -> dict[str, Value]:
    text = json.dumps({cell: row[cell] for cell in ("normal", "reduce") if cell in row})
    codes = space.macro.codes_of(text)
    if codes is None:
        raise other_space(space, "darts", where=where)
    return space.view(space.arch(codes))


READER = Reader(
    unit="percent",
    repeats="average",
    target="top1",
    space=("darts", 10),
    matches=_matches,
    read=_read,
)
