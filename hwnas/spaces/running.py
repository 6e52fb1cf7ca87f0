"""What a runtime computes of each arch, vectorised: operators, and what happens between them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces.choice import Codes
from hwnas.spaces.index import CHUNK, Number, enumerate_ops, extended, op_counts, op_index, op_sum
from hwnas.spaces.network import IMAGE, POOLING
from hwnas.spaces.skeleton import SlotGraph

if TYPE_CHECKING:
    from hwnas.spaces.space import SearchSpace

__all__ = ["graph_values", "live_counts", "live_sum"]


def live_counts(space: SearchSpace, codes: Codes) -> NDArray[np.float64]:
    """How often each operator of `enumerate_ops` runs in each arch: [n, operators].

    Operators on no path from the image to the logits do not run.
    """
    if space.macro.is_chain:
        return op_counts(space, codes)
    counts = np.zeros((len(codes), len(enumerate_ops(space)) + 1))
    for slot in _live(space, codes).T:
        counts[np.arange(len(codes)), slot] += 1  # -1 (absent) counts in the last column
    return counts[:, :-1]


def live_sum(
    space: SearchSpace, codes: Codes, per_op: NDArray[Number], *, once: bool = False
) -> NDArray[Number]:
    """Sum of `per_op` over the operators that run (see `live_counts`): [n].

    `per_op` is [operators] or [operators, k]; then the result is [n, k].

    once: count equal poolings of the same input once, as in exported networks
        (`Network.deployed`).

    Raises:
        UserError: codes that the space does not allow.
    """
    if space.macro.is_chain:
        return op_sum(space, codes, per_op)
    values = extended(per_op, 1)
    result = np.empty((len(codes), *per_op.shape[1:]), dtype=per_op.dtype)
    for part in _parts(len(codes)):
        index = _live(space, codes[part])
        if once:
            index = np.where(_twins_of(space, index) >= 0, np.int32(-1), index)
        result[part] = values[index].sum(axis=1)
    return result


def graph_values(space: SearchSpace, codes: Codes) -> NDArray[np.float64]:
    """Numbers of values that operators alone do not explain: [n, 2].

    Column 0: values that steps read late, which means that the step before did not write them.
    Column 1: values that the sums between operators write. Steps are those of
    `Network.deployed().steps()`: operators, and sums of two values. Chains have no such values. Two
    sums that are equal only because poolings were merged (1 of 300 archs of DARTS) count as two.

    Raises:
        UserError: codes that the space does not allow.
    """
    result = np.zeros((len(codes), 2))
    if not space.macro.is_chain:
        for part in _parts(len(codes)):
            result[part] = _graph_values(space, _live(space, codes[part]))
    return result


def _graph_values(space: SearchSpace, index: NDArray[np.int32]) -> NDArray[np.float64]:
    """`graph_values` of `_live` operators [n, slots]; follows the steps of all archs at once."""
    ops, reads = enumerate_ops(space), space.macro.slot_graph.reads or ()
    is_concat, is_identity = _are(space, index, "concat"), _are(space, index, "identity")
    is_identity[:, -1] = False  # a step, as every last operator
    size = np.array([*(float(op.out_channels * op.out_hw**2) for op in ops), 0.0])[index]
    same, n = _twins_of(space, index), len(index)
    runs, value = (index >= 0) & (same < 0), np.zeros(index.shape, dtype=np.int64)
    newest, late, summed = np.zeros(n, dtype=np.int64), np.zeros(n), np.zeros(n)
    totals = {sources: (np.full(n, -1), np.zeros(n)) for sources in reads}
    totals[()] = (np.full(n, IMAGE), np.zeros(n))
    for slot, sources in enumerate(reads):
        number, amount = totals[sources]
        passes = runs[:, slot] & is_identity[:, slot]
        steps = runs[:, slot] & ~passes
        late += amount * (steps & ~is_concat[:, slot] & (number != newest))
        if is_concat[:, slot].any():
            read = list(sources)
            is_late = (index[:, read] >= 0) & (value[:, read] != newest[:, None])
            late += (size[:, read] * (is_late & is_concat[:, slot, None])).sum(axis=1)
        newest = newest + steps
        twin = same[:, slot]
        again = value[np.arange(n), twin]
        value[:, slot] = np.where(twin >= 0, again, np.where(passes, number, newest))
        for terms, repeats, readers in _sums_with(space.macro.slot_graph, slot):
            joins = runs[:, slot] & (slot in terms)
            for second in repeats:
                joins = joins | (same[:, second] == slot)
            total, total_size = totals[terms]
            is_read = ((index[:, readers] >= 0) & ~is_concat[:, readers]).any(axis=1)
            adds = joins & (total >= 0) & is_read
            late += total_size * (adds & (total != newest))
            late += size[:, slot] * (adds & (value[:, slot] != newest))
            summed += size[:, slot] * adds
            newest = newest + adds
            found = np.where(adds, newest, value[:, slot])
            totals[terms] = (
                np.where(joins, found, total),
                np.where(joins, size[:, slot], total_size),
            )
    return np.stack([late, summed], axis=1)


def _parts(n: int) -> Iterator[slice]:
    for start in range(0, n, CHUNK):
        yield slice(start, start + CHUNK)


def _live(space: SearchSpace, codes: Codes) -> NDArray[np.int32]:
    """`op_index` in which operators on no path from the image to the logits are absent."""
    index = op_index(space, codes)
    live: NDArray[np.int32] = np.where(space.macro.slot_graph.live(index >= 0), index, np.int32(-1))
    return live


def _are(space: SearchSpace, index: NDArray[np.int32], *kinds: str) -> NDArray[np.bool_]:
    """Whether each operator of `index` [n, slots] is of one of the kinds."""
    is_kind = np.array([*(op.kind in kinds for op in enumerate_ops(space)), False])
    found: NDArray[np.bool_] = is_kind[index]
    return found


def _twins_of(space: SearchSpace, index: NDArray[np.int32]) -> NDArray[np.int32]:
    """The slot of the first equal pooling with the same input, if the slot repeats one; else -1."""
    pools = _are(space, index, *POOLING)
    found = np.full(index.shape, -1, dtype=np.int32)
    if pools.any() and not space.macro.absent_passes:
        decided = np.zeros(index.shape, dtype=bool)
        for first, second, is_one_sum in _pairs(space.macro.slot_graph):
            equal = pools[:, second] & (index[:, first] == index[:, second]) & ~decided[:, second]
            decided[equal, second] = True
            found[equal, second] = -1 if is_one_sum else first
    return found


@lru_cache(maxsize=32)
def _readers(graph: SlotGraph) -> dict[tuple[int, ...], list[int]]:
    """The slots that read the same sources, by these sources."""
    found: dict[tuple[int, ...], list[int]] = {}
    for slot, sources in enumerate(graph.reads or ()):
        found.setdefault(sources, []).append(slot)
    return found


@lru_cache(maxsize=32)
def _pairs(graph: SlotGraph) -> tuple[tuple[int, int, bool], ...]:
    """Pairs of slots with the same sources, in order, and whether one slot reads both."""
    readers = _readers(graph)
    together = {pair for sources in readers for pair in combinations(sorted(sources), 2)}
    pairs = (pair for slots in readers.values() for pair in combinations(slots, 2))
    return tuple((first, second, (first, second) in together) for first, second in pairs)


@lru_cache(maxsize=1 << 14)
def _sums_with(
    graph: SlotGraph, slot: int
) -> tuple[tuple[tuple[int, ...], list[int], list[int]], ...]:
    """Sums with a slot as term, in the order of their readers.

    With the slots of each sum that may repeat `slot`, and the readers of the sum.
    """
    twins = {second for first, second, _ in _pairs(graph) if first == slot}
    return tuple(
        (sources, sorted(twins & set(sources)), readers)
        for sources, readers in _readers(graph).items()
        if slot in sources or twins & set(sources)
    )
