"""One network as operators and edges, and the order in which it is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwnas.core.store import content_hash
from hwnas.spaces.ops import OpSpec

__all__ = ["IMAGE", "POOLING", "Edge", "Network", "Step", "edge_list"]

Edge = tuple[int, int]
"""(source, reader): positions of two operators; the source comes first."""

IMAGE = 0
"""Number of the network's input among the values of `Step`s."""

POOLING = ("avg_pool", "max_pool")
"""Kinds of operators without weights; equal ones with the same input compute the same."""


class Step(NamedTuple):
    """An operator that reads one value (`concat`: several), or (`op` is None) a sum of two values.

    Values are numbered; `IMAGE` is the input of the network. An operator without `reads` reads
    zeros.

    position: index of the operator in `Network.ops`. For a sum, the index of the operator that
        computes its last term.
    """

    op: OpSpec | None
    position: int
    reads: tuple[int, ...]
    writes: int


@dataclass(frozen=True)
class Network:
    """The operators of one arch in execution order, and the edges between them.

    The first operator reads the image, and the last one computes the result. Iterating yields the
    operators.

    edges: ascending pairs. None in a chain, where every operator reads the one before it. An
        operator with several sources reads their sum, and readers of the same sources share one
        sum. Only a `concat` reads the sources themselves, in ascending order.
    act_first: a `conv` applies its activation to its input (act-conv-BN) instead of its output.
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
        """Whether every operator reads only the operator before it."""
        return self.edges is None

    @cached_property
    def key(self) -> str:
        """16 hex digits; equal if operators, edges and the position of activations are equal.

        In a chain it is the hash of the keys of the operators, as in `network_key`.
        """
        ops = [op.key for op in self.ops]
        if self.edges is None and not self.act_first:
            return content_hash(ops)
        return content_hash([ops, self.edges, self.act_first])

    @cached_property
    def sources(self) -> tuple[tuple[int, ...], ...]:
        """Positions of the operators that each operator reads. The first one reads the image."""
        if self.edges is None:
            return tuple((i - 1,) if i else () for i in range(len(self.ops)))
        found: list[list[int]] = [[] for _ in self.ops]
        for source, reader in self.edges:
            found[reader].append(source)
        return tuple(map(tuple, found))

    @cached_property
    def branches(self) -> frozenset[int]:
        """Positions of the operators that are terms of sums; drop path drops them.

        Identities are excluded.
        """
        terms = {term for terms in self._sums() for term in terms}
        return frozenset(i for i in terms if self.ops[i].kind != "identity")

    def _sums(self) -> Iterator[tuple[int, ...]]:
        """The terms of every sum; several readers can have the same."""
        for op, sources in zip(self.ops, self.sources, strict=True):
            if len(sources) > 1 and op.kind != "concat":
                yield sources

    def live(self) -> Network:
        """The network without the operators that are on no path from the image to the result.

        The removed operators only compute constants from zeros, which runtimes fold before the
        first image. If there is no path from the image to the result, the first operator and those
        that the last one depends on remain.
        """
        kept = self._kept
        if len(kept) == len(self.ops):
            return self
        present = set(kept)
        return self._part(kept, (e for e in self.edges or () if present.issuperset(e)))

    def deployed(self) -> Network:
        """`live()` without poolings that equal an earlier one with the same input.

        Exported networks compute such poolings once (common subexpressions). Two terms of one sum
        stay.
        """
        net = self.live()
        if net.edges is None:
            return net
        together = {pair for sources in net.sources for pair in combinations(sources, 2)}
        first: dict[tuple[OpSpec, tuple[int, ...]], int] = {}
        same: dict[int, int] = {}
        for i, (op, sources) in enumerate(zip(net.ops, net.sources, strict=True)):
            if op.kind in POOLING:
                earlier = first.setdefault((op, sources), i)
                if earlier != i and (earlier, i) not in together:
                    same[i] = earlier
        if not same:
            return net
        edges = {
            (same.get(source, source), reader) for source, reader in net.edges if reader not in same
        }
        kept = [i for i in range(len(net.ops)) if i not in same]
        return net._part(kept, edges)

    def _part(self, kept: Sequence[int], edges: Iterable[Edge]) -> Network:
        """The operators at the positions `kept`, with `edges` between these positions."""
        number = {position: i for i, position in enumerate(kept)}
        return Network(
            tuple(self.ops[i] for i in kept),
            tuple(sorted((number[source], number[reader]) for source, reader in edges)),
            self.act_first,
        )

    @cached_property
    def _kept(self) -> tuple[int, ...]:
        """Positions of the operators of `live()`."""
        n = len(self.ops)
        if self.edges is None:
            return tuple(range(n))
        is_fed, is_needed = [False] * n, [False] * n
        is_fed[0] = is_needed[-1] = True
        for source, reader in self.edges:  # ascending, so edges into a source come first
            is_fed[reader] |= is_fed[source]
        for source, reader in reversed(self.edges):
            is_needed[source] |= is_needed[reader]
        has_path = is_fed[-1]
        return tuple(i for i in range(n) if not i or (is_needed[i] and (is_fed[i] or not has_path)))

    @cached_property
    def program(self) -> tuple[Step, ...]:
        """The steps of `live()`, but with positions in `ops` of this network."""
        steps, kept = self.live().steps(), self._kept
        return tuple(step._replace(position=kept[step.position]) for step in steps)

    def steps(self) -> Iterator[Step]:
        """Yields the steps that a runtime computes, in order.

        In `live()` networks these include every operator that is read. A sum adds each term as soon
        as the term is computed. An `identity` is not a step; its readers read its input.
        """
        sums_of: list[list[tuple[int, ...]]] = [[] for _ in self.ops]
        for terms in dict.fromkeys(self._sums()):
            for term in terms:
                sums_of[term].append(terms)
        is_read = {source for sources in self.sources for source in sources}
        values = list(range(len(self.ops)))  # number of the value that each operator computes
        totals: dict[tuple[int, ...], int] = {}
        newest = IMAGE
        for i, (op, sources) in enumerate(zip(self.ops, self.sources, strict=True)):
            is_last = i + 1 == len(self.ops)
            if i not in is_read and not is_last:
                continue
            reads = (IMAGE,) if i == 0 else tuple(values[source] for source in sources)
            if len(reads) > 1 and op.kind != "concat":
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
