"""One network as operators and edges, and the order in which it is computed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwnas.core.store import content_hash
from hwnas.spaces.ops import OpSpec

__all__ = ["IMAGE", "Edge", "Network", "Step", "edge_list"]

Edge = tuple[int, int]
"""(source, reader): positions of two operators, the source first."""

IMAGE = 0
"""Number of the value that `Step`s know the network's input by."""


class Step(NamedTuple):
    """An operator that reads one value, or (`op` is None) the sum of two values.

    Values are numbered; `IMAGE` is the input of the network. position: in `Network.ops`, of the
    operator, or of the one whose output a sum adds last.
    An operator without `reads` reads zeros.
    """

    op: OpSpec | None
    position: int
    reads: tuple[int, ...]
    writes: int


@dataclass(frozen=True)
class Network:
    """The operators of one arch in execution order, and who reads whom.

    The first operator reads the image, the last one writes the result. edges: ascending pairs; None
    in a chain, where every operator reads the one before it. An operator with several sources reads
    their sum; readers of the same sources share one sum. act_first: a `conv` applies its activation
    to what it reads (act-conv-BN), not to what it writes.

    Iterating yields the operators.
    """

    ops: tuple[OpSpec, ...]
    edges: tuple[Edge, ...] | None = None
    act_first: bool = False

    def __iter__(self) -> Iterator[OpSpec]:
        return iter(self.ops)

    def __len__(self) -> int:
        return len(self.ops)

    @property
    def is_chain(self) -> bool:
        """Whether every operator reads the one before it, and no other."""
        return self.edges is None

    @cached_property
    def key(self) -> str:
        """16 hex digits; equal where operators, edges and the place of activations are equal.

        Of a chain, the hash of its operators' keys alone: `network_key`.
        """
        ops = [op.key for op in self.ops]
        if self.edges is None and not self.act_first:
            return content_hash(ops)
        return content_hash([ops, self.edges, self.act_first])

    @cached_property
    def sources(self) -> tuple[tuple[int, ...], ...]:
        """Positions, per operator, of the operators that it reads; the first reads the image."""
        if self.edges is None:
            return tuple((i - 1,) if i else () for i in range(len(self.ops)))
        found: list[list[int]] = [[] for _ in self.ops]
        for source, reader in self.edges:
            found[reader].append(source)
        return tuple(map(tuple, found))

    def live(self) -> Network:
        """The network without the operators that lie on no path from the image to the result.

        Nothing is lost but constants: an operator that no path reaches reads zeros, and runtimes
        compute it once, before the first image. Where no path joins the two ends at all, both ends
        stay, and whatever the result depends on.
        """
        if self.edges is None:
            return self
        n = len(self.ops)
        is_fed, is_needed = [False] * n, [False] * n
        is_fed[0] = is_needed[-1] = True
        for source, reader in self.edges:  # ascending: whatever feeds a source came before
            is_fed[reader] |= is_fed[source]
        for source, reader in reversed(self.edges):
            is_needed[source] |= is_needed[reader]
        has_path = is_fed[-1]
        kept = [i for i in range(n) if not i or (is_needed[i] and (is_fed[i] or not has_path))]
        if len(kept) == n:
            return self
        number = {position: i for i, position in enumerate(kept)}
        edges = tuple(
            (number[source], number[reader])
            for source, reader in self.edges
            if source in number and reader in number
        )
        return Network(tuple(self.ops[i] for i in kept), edges, self.act_first)

    def steps(self) -> Iterator[Step]:
        """What a runtime does, in order; of `live()` networks, every operator that is read.

        A sum grows by a term as soon as the term is there. An `identity` is no step: it hands on
        the value that it reads.
        """
        sums_of: list[list[tuple[int, ...]]] = [[] for _ in self.ops]
        for terms in dict.fromkeys(sources for sources in self.sources if len(sources) > 1):
            for term in terms:
                sums_of[term].append(terms)
        is_read = {source for sources in self.sources for source in sources}
        values = list(range(len(self.ops)))  # per operator, the value it writes
        totals: dict[tuple[int, ...], int] = {}
        newest = IMAGE
        for i, (op, sources) in enumerate(zip(self.ops, self.sources, strict=True)):
            is_last = i + 1 == len(self.ops)
            if i not in is_read and not is_last:
                continue
            reads = (IMAGE,) if i == 0 else tuple(values[source] for source in sources)
            if len(reads) > 1:
                reads = (totals[sources],)
            if op.kind == "identity" and reads and not is_last:
                values[i] = reads[0]
            else:
                values[i] = newest = newest + 1
                yield Step(op, i, reads, newest)
            for terms in sums_of[i]:
                if terms in totals:
                    newest += 1
                    yield Step(None, i, (totals[terms], values[i]), newest)
                    totals[terms] = newest
                else:
                    totals[terms] = values[i]


def edge_list(edges: NDArray[np.bool_], present: NDArray[np.bool_]) -> tuple[Edge, ...]:
    """Converts the edge matrix [p, p] of one arch to ascending pairs.

    `present` [p] marks the slots that have an operator. Only these are numbered.
    """
    number = np.cumsum(present) - 1
    reader, source = np.nonzero(edges)
    return tuple(sorted(zip(number[source].tolist(), number[reader].tolist(), strict=True)))
