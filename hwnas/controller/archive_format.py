"""The file format of an archive: a first line that describes it, and records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hwnas.core.errors import UserError
from hwnas.core.records import SCHEMA_VERSION
from hwnas.spaces.space import SearchSpace

__all__ = ["AGAIN", "EVALUATED", "about", "code_type", "cost_keys", "row_type"]

EVALUATED = np.dtype([("row", "<i8"), ("label", "<f8"), ("score", "<f8")])
AGAIN = "remove the folder of this search, then run the search again"
CODE_TYPE = "code_type"  # key in the first line, present if codes take more than one byte


def about(space: SearchSpace, cost_keys: tuple[str, ...]) -> dict[str, Any]:
    """The header of an archive's files, as JSON values: the first line of each file."""
    head = {"schema_version": SCHEMA_VERSION, "space": space.id, "cost_keys": list(cost_keys)}
    return head if code_type(space) == "u1" else head | {CODE_TYPE: code_type(space)}


def cost_keys(head: dict[str, Any], space: SearchSpace, folder: Path) -> tuple[str, ...]:
    """Cost keys that an archive tracks, from its first line; empty if it tracks none.

    Raises:
        UserError: it belongs to another space or version, or is damaged.
    """
    if head and (head.get("schema_version"), head.get("space")) != (
        SCHEMA_VERSION,
        space.id,
    ):
        raise UserError(
            "the archive belongs to another space or version",
            expected=f"space {space.id}, version {SCHEMA_VERSION}",
            found=f"space {head.get('space')}, version {head.get('schema_version')}",
            where=folder,
            fix=AGAIN,
        )
    keys = head.get("cost_keys", [])
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise UserError(
            "the archive of a search is damaged",
            expected="`cost_keys`: a list of texts",
            found=f"`cost_keys`: {keys!r:.80}",
            where=folder,
            fix=AGAIN,
        )
    if head and head.get(CODE_TYPE, "u1") != code_type(space):
        raise UserError(
            "the archive is of an earlier version, which stored only the last eight bits of codes",
            where=folder,
            fix=AGAIN,
        )
    return tuple(keys)


def code_type(space: SearchSpace) -> str:
    """The numpy type of codes in the file: one byte if all codes fit."""
    return "u1" if max(len(choice.values) for choice in space.choices) <= 256 else "<u2"


def row_type(space: SearchSpace, cost_keys: tuple[str, ...]) -> np.dtype[np.void]:
    """The type of a packed little-endian record."""
    return np.dtype(
        [
            ("codes", code_type(space), (len(space.choices),)),
            ("feasible", "?"),
            ("predicted", "<f8"),
            ("predicted_std", "<f8"),
            ("costs", "<f8", (len(cost_keys),)),
        ]
    )
