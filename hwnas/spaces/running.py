"""What a runtime computes of each arch, vectorised: operators, and the sums between them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces.choice import Codes
from hwnas.spaces.index import CHUNK, Number, enumerate_ops, extended, op_counts, op_index, op_sum
from hwnas.spaces.network import POOLING
from hwnas.spaces.skeleton import SlotGraph

if TYPE_CHECKING:
    from hwnas.spaces.space import SearchSpace

__all__ = ["live_counts", "live_sum", "summed_values"]


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
        result[part] = values[_merged(space, index) if once else index].sum(axis=1)
    return result


def summed_values(space: SearchSpace, codes: Codes) -> NDArray[np.float64]:
    """Number of values that the sums between operators add: [n].

    A sum of k maps counts as k - 1 maps. Sums within an operator (residual connections) do not
    count, so chains have none.

    Raises:
        UserError: codes that the space does not allow.
    """
    result = np.zeros(len(codes))
    if space.macro.is_chain:
        return result
    graph, ops = space.macro.slot_graph, enumerate_ops(space)
    sizes = np.array([*(float(op.out_channels * op.out_hw**2) for op in ops), 0.0])
    concats = np.array([*(op.kind == "concat" for op in ops), False])
    for part in _parts(len(codes)):
        index = _live(space, codes[part])
        is_live, adds = index >= 0, (index >= 0) & ~concats[index]
        for sources, readers in _sums(graph):
            terms = is_live[:, sources]
            size = np.where(terms, sizes[index[:, sources]], 0.0).max(axis=1)
            is_read = adds[:, readers].any(axis=1)
            result[part] += is_read * np.maximum(terms.sum(axis=1) - 1, 0) * size
    return result


def _parts(n: int) -> Iterator[slice]:
    for start in range(0, n, CHUNK):
        yield slice(start, start + CHUNK)


def _live(space: SearchSpace, codes: Codes) -> NDArray[np.int32]:
    """`op_index` in which operators on no path from the image to the logits are absent."""
    index = op_index(space, codes)
    live: NDArray[np.int32] = np.where(space.macro.slot_graph.live(index >= 0), index, np.int32(-1))
    return live


def _merged(space: SearchSpace, index: NDArray[np.int32]) -> NDArray[np.int32]:
    """`_live` in which poolings that equal an earlier one with the same input are absent."""
    pools = np.array([*(op.kind in POOLING for op in enumerate_ops(space)), False])
    if not pools.any() or space.macro.absent_passes:
        return index
    found: NDArray[np.int32] = index.copy()
    for first, second in _twins(space.macro.slot_graph):
        repeated = (index[:, first] == index[:, second]) & pools[index[:, second]]
        found[repeated, second] = -1
    return found


@lru_cache(maxsize=32)
def _sums(graph: SlotGraph) -> tuple[tuple[list[int], list[int]], ...]:
    """The sources of each sum, and the slots that read it."""
    readers: dict[tuple[int, ...], list[int]] = {}
    for slot, sources in enumerate(graph.reads or ()):
        if len(sources) > 1:
            readers.setdefault(sources, []).append(slot)
    return tuple((list(sources), slots) for sources, slots in readers.items())


@lru_cache(maxsize=32)
def _twins(graph: SlotGraph) -> tuple[tuple[int, int], ...]:
    """Pairs of slots, the earlier one first, with the same sources and no reader in common."""
    reads = graph.reads or ()
    slots_of: dict[tuple[int, ...], list[int]] = {}
    for slot, sources in enumerate(reads):
        slots_of.setdefault(sources, []).append(slot)
    together = {pair for sources in reads for pair in combinations(sorted(sources), 2)}
    return tuple(
        pair
        for slots in slots_of.values()
        for pair in combinations(slots, 2)
        if pair not in together
    )
