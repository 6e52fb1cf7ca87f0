"""Limits on spaces, because the operators of larger ones could not be listed or timed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hwnas.core.errors import UserError

if TYPE_CHECKING:
    from hwnas.spaces.space import SearchSpace

__all__ = ["check_combinations", "check_operators", "check_values"]

MAX_LOWERED = 4_000_000
"""Maximum number of operators that are lowered to fill the tables of a space, 0.9 us each. Among
our own spaces, mobilenet_v4 medium needs the most: 2.1 million.
"""
MAX_OPERATORS = 40_000
"""Maximum number of different operators of a space; latency tables have a row for each."""


def check_values(space: SearchSpace, n_slots: int) -> None:
    """Checks that the values of all choices are few enough to try each one.

    Raises:
        UserError: names the limit and the choices with the most values.
    """
    n_values = sum(len(choice.values) for choice in space.choices)
    if n_values * n_slots > MAX_LOWERED:
        limit = f"{MAX_LOWERED // n_slots:,} in a network of {n_slots:,} operators"
        columns = range(len(space.choices))
        raise _too_large(space, "values of choices", limit, f"{n_values:,}", columns)


def check_combinations(space: SearchSpace, columns_of: Sequence[Sequence[int]]) -> None:
    """Checks that the combinations of the choices of a slot are few enough to try each one.

    Slots that depend on the same choices are lowered together.

    columns_of: columns of the choices, by slot.

    Raises:
        UserError: names the limit and the choices with the most values.
    """
    sizes = {
        tuple(columns): math.prod(len(space.choices[c].values) for c in columns)
        for columns in columns_of
    }
    n, n_slots = sum(sizes.values()), len(columns_of)
    if n * n_slots > MAX_LOWERED:
        limit = f"{MAX_LOWERED // n_slots:,} in a network of {n_slots:,} operators"
        columns = max(sizes, key=lambda columns: sizes[columns])
        raise _too_large(space, "combinations of choices", limit, f"{n:,}", columns)


def check_operators(space: SearchSpace, n: int, columns: Sequence[int]) -> None:
    """Checks that a latency table can time n operators; `columns`: choices of the last slot.

    Raises:
        UserError: names the limit and the choices with the most values.
    """
    if n > MAX_OPERATORS:
        limit = f"{MAX_OPERATORS:,} different ones"
        raise _too_large(space, "operators", limit, "more", columns)


def _too_large(
    space: SearchSpace, what: str, limit: str, found: str, columns: Sequence[int]
) -> UserError:
    most = sorted(columns, key=lambda column: -len(space.choices[column].values))[:4]
    counts = [f"{space.choices[c].name} ({len(space.choices[c].values)})" for c in most]
    return UserError(
        f"the space has too many {what}",
        expected=f"at most {limit}",
        found=found,
        where=f"space {space.id}",
        fix="give fewer values or blocks" + (f": {', '.join(counts)}" if counts else ""),
    )
