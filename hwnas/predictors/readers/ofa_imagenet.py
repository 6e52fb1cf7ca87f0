"""A JSON list of Once-for-All subnets (`ks`, `e`, `d`, `r`) with measured top-1 in percent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from hwnas.core.errors import UserError
from hwnas.core.store import read_json
from hwnas.core.text import in_words, kind_of
from hwnas.interfaces import Reader, Table
from hwnas.predictors.records import OTHER_READER, OTHER_SPACE, number, table_of
from hwnas.spaces.choice import Value
from hwnas.spaces.space import SearchSpace

__all__ = ["READER"]

STAGES, BLOCKS = 5, 4


def _matches(head: str) -> bool:
    return re.match(r'\s*\[\s*\{\s*"(ks|e|d|r)"', head) is not None


def _read(path: Path, space: SearchSpace) -> Table:
    """Reads subnets; `ks` and `e` have 5 x 4 values; a stage uses its first `d` (1908.09791)."""
    rows = read_json(path)
    if not isinstance(rows, list):
        raise UserError(
            "not a list of OFA subnets",
            expected="a JSON list of objects with `ks`, `e`, `d` and `top1`",
            found=kind_of(rows),
            where=path,
            fix=OTHER_READER,
        )
    views = [_view(row, where=f"{path}, entry {i}") for i, row in enumerate(rows)]
    columns = {
        name: [_numbers(row.get(name), where=f"{path}, entry {i}") for i, row in enumerate(rows)]
        for name in ("top1", "params", "macs")
    }
    return table_of(space, views, columns, where=path)


def _lengths(row: Mapping[str, Any], keys: Iterable[str]) -> str:
    lists = {key: row[key] for key in keys if isinstance(row.get(key), list)}
    return ", ".join(f"{key}: {len(lists[key]) if key in lists else 'no list'}" for key in keys)


def _view(row: Any, *, where: str) -> dict[str, Value]:
    lengths = {"ks": STAGES * BLOCKS, "e": STAGES * BLOCKS, "d": STAGES}
    if not isinstance(row, dict) or any(
        not isinstance(row.get(key), list) or len(row[key]) != n for key, n in lengths.items()
    ):
        raise UserError(
            "the arch belongs to another space",
            expected=f"lists with these numbers of values: {in_words(lengths)}",
            found=_lengths(row, lengths) if isinstance(row, dict) else kind_of(row),
            where=where,
            fix=OTHER_SPACE,
        )
    view: dict[str, Value] = {"resolution": row.get("r", 0)}
    for stage, depth in enumerate(row["d"]):
        view[f"stage{stage + 1}.depth"] = depth
    for i, (stage, block) in enumerate(product(range(STAGES), range(BLOCKS))):
        view[f"stage{stage + 1}.block{block}.kernel"] = row["ks"][i]
        view[f"stage{stage + 1}.block{block}.expand"] = row["e"][i]
    return view


def _numbers(value: Any, *, where: str) -> list[float]:
    found = value if isinstance(value, list) else [] if value is None else [value]
    return [number(item, where=where) for item in found]


READER = Reader(
    unit="percent",
    repeats="average",  # subnets found by several searches were measured several times
    target="top1",
    space=("mobilenet_v3", 1000),
    matches=_matches,
    read=_read,
)
