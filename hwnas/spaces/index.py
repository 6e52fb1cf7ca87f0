"""Vectorised lowering: arrays of archs to arrays of operator numbers, and sums over them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.spaces.choice import Codes
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.slot_tables import DISALLOWED, SlotTable, slot_tables

if TYPE_CHECKING:
    from hwnas.spaces.space import SearchSpace

__all__ = [
    "CHUNK",
    "Number",
    "enumerate_ops",
    "extended",
    "op_counts",
    "op_index",
    "op_max",
    "op_sum",
    "slot_alternatives",
    "slot_ops",
]

Number = TypeVar("Number", np.int64, np.float64)

CHUNK = 1 << 13  # rows per chunk, so that intermediate columns stay in the cache
BLOCK = 256  # maximum number of combinations of choices that a block of slots lists


@dataclass(frozen=True)
class _Block:
    """Neighbouring slots, and all combinations of the choices that they depend on.

    `ids` [slots, combinations]. `is_barred` [combinations]: whether the space disallows the
    combination; None if all are allowed.
    """

    columns: tuple[int, ...]
    sizes: tuple[int, ...]
    ids: NDArray[np.int32]
    is_barred: NDArray[np.bool_] | None

    def rows(self, columns: NDArray[np.int16]) -> NDArray[Any]:
        """Index of each arch's combination, int16 [n] (int32 if needed), for `columns` [d, n]."""
        dtype = np.int16 if self.ids.shape[1] < 1 << 15 else np.int32
        flat = np.zeros(columns.shape[1], dtype=dtype)
        for column, size in zip(self.columns, self.sizes, strict=True):
            flat *= dtype(size)
            flat += columns[column]
        return flat


@lru_cache(maxsize=64)
def _blocks(space: SearchSpace) -> tuple[_Block, ...]:
    """Groups all slots into blocks of at most `BLOCK` combinations.

    Root choices with a single code are left out.
    """
    tables = slot_tables(space)[1]
    settled = _settled(space)
    groups: list[tuple[list[int], list[SlotTable]]] = []
    for table in tables:
        free = [column for column in table.columns if column not in settled]
        if groups:
            union = sorted({*groups[-1][0], *free})
            if np.prod([len(space.choices[c].values) for c in union]) <= BLOCK:
                groups[-1] = union, [*groups[-1][1], table]
                continue
        groups.append((free, [table]))
    blocks = []
    for columns, members in groups:
        sizes = tuple(len(space.choices[column].values) for column in columns)
        codes = np.indices(sizes).reshape(len(sizes), math.prod(sizes))
        local = dict(zip(columns, codes, strict=True))
        ids = np.stack(
            [
                np.broadcast_to(
                    table.ids[tuple(local.get(c, settled.get(c, 0)) for c in table.columns)],
                    codes.shape[1:],
                )
                for table in members
            ]
        )
        is_barred = (ids == DISALLOWED).any(axis=0)
        blocks.append(_Block(tuple(columns), sizes, ids, is_barred if is_barred.any() else None))
    return tuple(blocks)


def _settled(space: SearchSpace) -> dict[int, int]:
    """The code of every root choice that has only one allowed code."""
    return {
        column: allowed[0]
        for column, (choice, allowed) in enumerate(zip(space.choices, space.allowed, strict=True))
        if choice.parent is None and len(allowed) == 1
    }


def enumerate_ops(space: SearchSpace) -> tuple[OpSpec, ...]:
    """All distinct operators of the (possibly restricted) space, in a fixed order."""
    return slot_tables(space)[0]


def slot_ops(space: SearchSpace) -> tuple[tuple[OpSpec, ...], ...]:
    """Distinct operators of each slot (in the order of `slot_names`), before any `restrict`.

    Shared weights must fit all of these operators, so the result is the same for a space and its
    restrictions. Only the smallest resolution is lowered, because no weight depends on it.
    """
    ops, tables = _unrestricted(space)
    return tuple(_distinct(ops, table.ids) for table in tables)


def slot_alternatives(space: SearchSpace) -> tuple[dict[str, tuple[OpSpec, ...]], ...]:
    """For every slot, maps each value of its operator choice (`op_choice`) to distinct operators.

    A slot without such a choice has all its operators under the key "".
    """
    ops, tables = _unrestricted(space)
    columns = {choice.name: column for column, choice in enumerate(space.choices)}
    found = []
    for slot, table in zip(space.macro.slot_names(), tables, strict=True):
        column = columns.get(space.macro.op_choice(slot))
        if column is None:
            found.append({"": _distinct(ops, table.ids)})
            continue
        names = [str(value) for value in space.choices[column].values]
        if column in table.columns:
            per_code = np.moveaxis(table.ids, table.columns.index(column), 0)
        else:  # all alternatives are the same operator
            per_code = np.stack([table.ids] * len(names))
        parts = zip(names, per_code, strict=True)
        found.append({name: _distinct(ops, ids) for name, ids in parts})
    return tuple(found)


def _unrestricted(space: SearchSpace) -> tuple[tuple[OpSpec, ...], tuple[SlotTable, ...]]:
    """Slot tables of the space with all codes allowed, at the smallest resolution."""
    everything = [tuple(range(len(choice.values))) for choice in space.choices]
    everything[0] = (0,)
    return slot_tables(replace(space, allowed=tuple(everything)))


def _distinct(ops: tuple[OpSpec, ...], ids: NDArray[np.int32]) -> tuple[OpSpec, ...]:
    return tuple(ops[i] for i in np.unique(ids) if i >= 0)


def op_index(space: SearchSpace, codes: Codes) -> NDArray[np.int32]:
    """Converts codes [n, d] to operators int32 [n, slots]: indices into `enumerate_ops`.

    -1 means that a slot is empty.

    Equal to `lower()` for canonical codes (tested on random archs of every space).

    Raises:
        UserError: codes that the space does not allow.
    """
    tables = slot_tables(space)[1]
    result = np.empty((len(codes), len(tables)), dtype=np.int32)
    for part, columns in _chunks(codes, np.int32):
        for slot, table in enumerate(tables):
            result[part, slot] = np.take(table.ids, table.rows(columns))
    if (result == DISALLOWED).any():
        raise _disallowed(space)
    return result


def op_counts(space: SearchSpace, codes: Codes) -> NDArray[np.float64]:
    """How often each operator of `enumerate_ops` occurs in each arch: [n, operators]."""
    index = op_index(space, codes)
    counts = np.zeros((len(codes), len(enumerate_ops(space)) + 1))
    for slot in index.T:
        counts[np.arange(len(codes)), slot] += 1  # -1 (absent) counts in the last column
    return counts[:, :-1]


def op_sum(space: SearchSpace, codes: Codes, per_op: NDArray[Number]) -> NDArray[Number]:
    """Sum of `per_op` [len(enumerate_ops(space))] over the operators of every row: [n].

    With `per_op` [operators, k], the sums of all k columns: [n, k].

    This is the cost of an arch if costs are additive. It equals the sum of `per_op[op_index(...)]`
    without storing that array.

    Raises:
        UserError: codes that the space does not allow.
    """
    return _reduce(space, codes, per_op, np.add)


def op_max(space: SearchSpace, codes: Codes, per_op: NDArray[Number]) -> NDArray[Number]:
    """Maximum of `per_op` over the operators of every row: [n]. Values must be non-negative."""
    return _reduce(space, codes, per_op, np.maximum)


def _reduce(
    space: SearchSpace, codes: Codes, per_op: NDArray[Number], combine: np.ufunc
) -> NDArray[Number]:
    for column, code in _settled(space).items():
        if (codes[:, column] != code).any():
            raise _disallowed(space)
    result = np.zeros((len(codes), *per_op.shape[1:]), dtype=per_op.dtype)
    values = extended(per_op, 2)  # DISALLOWED and ABSENT
    blocks = [(block, combine.reduce(values[block.ids], axis=0)) for block in _blocks(space)]
    for part, columns in _chunks(codes, np.int16):
        total = result[part]
        for block, value in blocks:
            rows = block.rows(columns)
            combine(total, np.take(value, rows, axis=0), out=total)
            if block.is_barred is not None and np.take(block.is_barred, rows).any():
                raise _disallowed(space)
    return result


def extended(per_op: NDArray[Number], n: int) -> NDArray[Number]:
    """`per_op` with n rows of zeros at its end."""
    return np.concatenate([per_op, np.zeros((n, *per_op.shape[1:]), dtype=per_op.dtype)])


def _chunks(codes: Codes, dtype: type[np.integer[Any]]) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Slices of rows with their codes transposed, so that each choice is contiguous."""
    for start in range(0, len(codes), CHUNK):
        part = slice(start, start + CHUNK)
        yield part, np.ascontiguousarray(codes[part].T, dtype=dtype)


def _disallowed(space: SearchSpace) -> UserError:
    return UserError(
        "archs use codes that the space does not allow",
        expected="codes that SearchSpace.validate accepts, in every row",
        where=f"{space.id}, fingerprint {space.fingerprint}",
    )
