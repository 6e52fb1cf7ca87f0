"""Vectorised lowering: arrays of archs as arrays of operator numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces.lowering import lower_slots
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["enumerate_ops", "op_index", "slot_ops"]


@dataclass(frozen=True)
class _SlotTable:
    """Operator ids of one slot for every combination of the few choices that it depends on."""

    columns: tuple[int, ...]
    ids: NDArray[np.int32]  # shape: len(values) of each column


_DISALLOWED = np.iinfo(np.int32).max  # any table indexed with it fails loudly


@lru_cache(maxsize=32)
def _slot_tables(space: SearchSpace) -> tuple[tuple[OpSpec, ...], tuple[_SlotTable, ...]]:
    """All reachable operators, and per slot the table from local codes to operator ids."""
    largest = [len(choice.values) - 1 for choice in space.choices]
    ops: dict[OpSpec, int] = {}
    tables = []
    for slot, columns in enumerate(_slot_columns(space, largest)):
        shape = [len(space.choices[column].values) for column in columns]
        ids = np.empty(shape, dtype=np.int32)
        for local in product(*(range(n) for n in shape)):
            codes = list(largest)
            for column, code in zip(columns, local, strict=True):
                codes[column] = code
            op = lower_slots(space.macro, tuple(codes))[slot]
            if op is None:
                ids[local] = -1
            elif all(c in space.allowed[column] for column, c in zip(columns, local, strict=True)):
                ids[local] = ops.setdefault(op, len(ops))
            else:
                ids[local] = _DISALLOWED
        tables.append(_SlotTable(tuple(columns), ids))
    return tuple(ops), tuple(tables)


def _slot_columns(space: SearchSpace, largest: list[int]) -> list[list[int]]:
    """Which choices each slot depends on, found by changing one choice of the largest at a time."""
    reference = lower_slots(space.macro, tuple(largest))
    columns: list[list[int]] = [[] for _ in reference]
    for column, choice in enumerate(space.choices):
        variants = [
            lower_slots(space.macro, (*largest[:column], code, *largest[column + 1 :]))
            for code in range(len(choice.values))
        ]
        for slot, depends in enumerate(columns):
            if any(changed[slot] != reference[slot] for changed in variants):
                depends.append(column)
    return columns


def enumerate_ops(space: SearchSpace) -> tuple[OpSpec, ...]:
    """All distinct operators of the (possibly restricted) space, in a fixed order."""
    return _slot_tables(space)[0]


def slot_ops(space: SearchSpace) -> tuple[tuple[OpSpec, ...], ...]:
    """Per slot of `slot_names`, its distinct operators; those of the space before any `restrict`.

    What a weight shared by all of them must fit, hence the same for a space and its prunings.
    """
    ops, tables = _slot_tables(replace(space, allowed=()))
    return tuple(tuple(ops[i] for i in np.unique(table.ids) if i >= 0) for table in tables)


def op_index(space: SearchSpace, codes: Codes) -> NDArray[np.int32]:
    """int32 [n, p]: operator of every slot as an index into `enumerate_ops`; -1 = absent.

    Every additive cost is `table[op_index].sum(1)` with a zero appended for -1. Equal to `lower()`
    for canonical codes (tested on random archs of every space). Codes that the space does not
    allow get an index out of every table's range.
    """
    tables = _slot_tables(space)[1]
    result = np.empty((len(codes), len(tables)), dtype=np.int32)
    for slot, table in enumerate(tables):
        local = tuple(codes[:, column] for column in table.columns)
        result[:, slot] = table.ids[local] if local else table.ids
    return result
