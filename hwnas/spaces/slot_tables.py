"""Tabulates the operators of each slot of a space over the few choices that the slot depends on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces.limits import check_combinations, check_operators, check_values
from hwnas.spaces.ops import OpSpec

if TYPE_CHECKING:
    from hwnas.spaces.space import SearchSpace

__all__ = ["DISALLOWED", "SlotTable", "slot_tables"]

ABSENT = -1
DISALLOWED = -2


@dataclass(frozen=True)
class SlotTable:
    """Operator ids of one slot for every combination of the few choices that it depends on.

    columns: columns of these choices.
    ids: array with one axis per choice; -1: no operator, -2: not allowed.
    """

    columns: tuple[int, ...]
    ids: NDArray[np.int32]  # shape: len(values) of each column

    def rows(self, columns: NDArray[np.int32]) -> NDArray[np.int32]:
        """Returns where flattened `ids` has the operator of each arch: int32 [n].

        columns: transposed codes of n archs, [d, n].
        """
        flat = np.zeros(columns.shape[1], dtype=np.int32)
        for column, size in zip(self.columns, self.ids.shape, strict=True):
            flat *= np.int32(size)
            flat += columns[column]
        return flat


@lru_cache(maxsize=64)
def slot_tables(space: SearchSpace) -> tuple[tuple[OpSpec, ...], tuple[SlotTable, ...]]:
    """Lists all operators of a space, and makes the table of each slot; ids index the list."""
    largest = [len(choice.values) - 1 for choice in space.choices]
    ops: dict[OpSpec, int] = {}
    allowed, tables = [frozenset(codes) for codes in space.allowed], []
    lower = cache(space.macro.lower_slots)  # slots that depend on the same choices share networks
    columns_of = _slot_columns(space, largest)
    check_combinations(space, columns_of)
    for slot, columns in enumerate(columns_of):
        shape = [len(space.choices[column].values) for column in columns]
        ids = np.empty(shape, dtype=np.int32)
        for local in product(*(range(n) for n in shape)):
            codes = list(largest)
            for column, code in zip(columns, local, strict=True):
                codes[column] = code
            if not _is_allowed(space, allowed, codes, columns):
                ids[local] = DISALLOWED
                continue
            op = lower(tuple(codes))[slot]
            ids[local] = ABSENT if op is None else ops.setdefault(op, len(ops))
            check_operators(space, len(ops), columns)
        tables.append(SlotTable(tuple(columns), ids))
    return tuple(ops), tuple(tables)


def _is_allowed(
    space: SearchSpace, allowed: list[frozenset[int]], codes: list[int], columns: list[int]
) -> bool:
    """Whether all active choices among `columns` have codes in `allowed` (by column)."""
    for column in columns:
        choice = space.choices[column]
        is_active = choice.parent is None or codes[choice.parent] in choice.parent_codes
        if is_active and codes[column] not in allowed[column]:
            return False
    return True


def _slot_columns(space: SearchSpace, largest: list[int]) -> list[list[int]]:
    """Choices that each slot depends on.

    Found by changing one choice of the largest arch in which it is active at a time, then a choice
    together with its parent.
    """
    check_values(space, len(space.macro.lower_slots(tuple(largest))))
    columns: list[list[int]] = [[] for _ in space.macro.slot_names()]
    for column, choice in enumerate(space.choices):
        codes = _activating(space, largest, column)
        reference, *variants = (
            space.macro.lower_slots((*codes[:column], code, *codes[column + 1 :]))
            for code in reversed(range(len(choice.values)))
        )
        for slot, depends in enumerate(columns):
            if any(changed[slot] != reference[slot] for changed in variants):
                depends.append(column)
    _add_parents(space, largest, columns)
    return columns


def _add_parents(space: SearchSpace, largest: list[int], columns: list[list[int]]) -> None:
    """Adds the parent of a choice to slots that change with it only for some values of the choice.

    An example is a slot that exists only for the first value, and only while the choice is active.
    """
    for column, choice in enumerate(space.choices):
        parent = choice.parent
        slots = [i for i, found in enumerate(columns) if column in found and parent not in found]
        if parent is None or not slots:
            continue
        codes = _activating(space, largest, column)
        for code in range(len(choice.values)):
            codes[column] = code
            reference, *variants = (
                space.macro.lower_slots((*codes[:parent], above, *codes[parent + 1 :]))
                for above in range(len(space.choices[parent].values))
            )
            for slot in slots:
                if any(changed[slot] != reference[slot] for changed in variants):
                    columns[slot] = sorted({*columns[slot], parent})


def _activating(space: SearchSpace, largest: list[int], column: int) -> list[int]:
    """Codes of the largest arch, with a choice activated by the largest codes of its parents."""
    codes, choice = [*largest], space.choices[column]
    while choice.parent is not None:
        if codes[choice.parent] not in choice.parent_codes:
            codes[choice.parent] = max(choice.parent_codes)
        choice = space.choices[choice.parent]
    return codes
