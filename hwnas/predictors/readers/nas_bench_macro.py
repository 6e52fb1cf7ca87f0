"""NAS-Bench-Macro's JSON: three stand-alone CIFAR-10 accuracies in percent per arch."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from hwnas.core.confined import read_regular
from hwnas.core.errors import UserError
from hwnas.core.store import MAX_JSON_BYTES
from hwnas.core.text import kind_of
from hwnas.interfaces import Reader, Table
from hwnas.predictors.records import OTHER_READER, OTHER_SPACE, number, table_of
from hwnas.spaces.space import SearchSpace

__all__ = ["READER"]


def _matches(head: str) -> bool:
    return re.match(r'\s*\{\s*"\d+"\s*:\s*\{', head) is not None


def _read(path: Path, space: SearchSpace) -> Table:
    """Reads the keys, which have one digit per layer: an index of the operators of the layer.

    The format is that of the repository of Su et al., CVPR 2021. Numbers are columns; lists of
    numbers are repeated values.
    """
    layers = [choice for choice in space.choices if choice.role == "op"]
    views, values = [], []
    for digits, entry in _pairs(path):
        where = f"{path}, arch {digits}"
        if not _is_object(entry) or not re.fullmatch(rf"[0-9]{{{len(layers)}}}", digits):
            raise UserError(
                "the arch belongs to another space",
                expected=f"keys of {len(layers)} digits, and JSON objects as values",
                found=f"the key {digits!r} with {_kind(entry)} as its value",
                where=where,
                fix=OTHER_SPACE,
            )
        view = {}
        for choice, digit in zip(layers, map(int, digits), strict=True):
            view[choice.name] = choice.values[digit] if digit < len(choice.values) else digit
        views.append(view)
        values.append(
            {
                name: [number(item, where=where) for item in (v if isinstance(v, list) else [v])]
                for name, v in entry
            }
        )
    names = dict.fromkeys(name for row in values for name in row)
    columns = {name: [row.get(name, []) for row in values] for name in names}
    return table_of(space, views, columns, where=path)


def _pairs(path: Path) -> list[tuple[str, Any]]:
    """JSON objects as lists of pairs, so that an arch listed twice keeps both entries."""
    try:
        pairs = json.loads(read_regular(path, at_most=MAX_JSON_BYTES), object_pairs_hook=list)
    except OSError as error:
        raise UserError(
            "cannot read a file",
            found=error.strerror,
            where=path,
            fix="check the path, and the permissions of the file",
        ) from error
    except (ValueError, RecursionError) as error:  # integers of any length, deep nesting
        raise UserError(
            "not valid JSON", found=str(error), where=path, fix="copy or download the file again"
        ) from error
    if not _is_object(pairs):
        raise UserError(
            "not a file of NAS-Bench-Macro",
            expected="a JSON object with one entry per arch: the key is the arch, one digit per"
            " layer, and the value is a JSON object",
            found=_kind(pairs),
            where=path,
            fix=OTHER_READER,
        )
    return list(pairs)


def _kind(value: object) -> str:
    return "a JSON object" if _is_object(value) else kind_of(value)


def _is_object(value: object) -> bool:
    """Whether parsed JSON is an object (a list of pairs) instead of an array."""
    return isinstance(value, list) and all(isinstance(item, tuple) for item in value)


READER = Reader(
    unit="percent",
    repeats="average",
    target="test_acc",
    space=("nasbench_macro", 10),
    matches=_matches,
    read=_read,
)
