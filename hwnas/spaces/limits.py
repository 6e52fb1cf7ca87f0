"""Refuses spaces that are too large to list or time all their operators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hwnas.core.errors import UserError

if TYPE_CHECKING:
    from hwnas.spaces.space import SearchSpace

__all__ = ["check_combinations", "check_operators", "check_values"]

MAX_LOWERED = 4_000_000
"""Maximum number of operators that are lowered to fill the tables of a space; each takes 0.9 us.
Among the spaces of hwnas, mobilenet_v4 medium needs the most: 2.1 million.
"""
MAX_OPERATORS = 40_000
"""Maximum number of different operators of a space; latency tables have a row for each."""


def check_values(space: SearchSpace, n_slots: int) -> None:
    """Refuses a space whose choices have too many values in total.

    hwnas lowers one arch per value to find the slots that depend on the choice.

    n_slots: number of slots in an arch.

    Raises:
        UserError: names the limit and the choices with the most values.
    """
    n_values = sum(len(choice.values) for choice in space.choices)
    if n_values * n_slots > MAX_LOWERED:
        limit = f"{MAX_LOWERED // n_slots:,} values in a network of {n_slots:,} operators"
        columns = range(len(space.choices))
        raise _too_large(space, "values of choices", limit, f"{n_values:,} values", columns)


def check_combinations(space: SearchSpace, columns_of: Sequence[Sequence[int]]) -> None:
    """Refuses a space with too many combinations of choices on which one slot depends.

    hwnas lowers one arch per combination to find the operators of the slot. Slots that depend on
    the same choices share these archs.

    columns_of: for each slot, the columns of the choices on which it depends.

    Raises:
        UserError: names the limit and the choices with the most values.
    """
    sizes = {
        tuple(columns): math.prod(len(space.choices[c].values) for c in columns)
        for columns in columns_of
    }
    n, n_slots = sum(sizes.values()), len(columns_of)
    if n * n_slots > MAX_LOWERED:
        limit = f"{MAX_LOWERED // n_slots:,} combinations in a network of {n_slots:,} operators"
        columns = max(sizes, key=lambda columns: sizes[columns])
        raise _too_large(space, "combinations of choices", limit, f"{n:,} combinations", columns)


def check_operators(space: SearchSpace, n: int, columns: Sequence[int]) -> None:
    """Refuses a space with too many operators for a latency table.

    n: number of operators that were found so far.
    columns: columns of the choices that determine the last of them.

    Raises:
        UserError: names the limit and the choices with the most values.
    """
    if n > MAX_OPERATORS:
        limit = f"{MAX_OPERATORS:,} different operators"
        raise _too_large(space, "operators", limit, f"at least {n:,} operators", columns)


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
