"""Cells of NAS-Bench-101: directed acyclic graphs, and the canonical form of isomorphic ones.

Vertices are in topological order: 0 is the input, n - 1 the output. Every vertex lies on a path
from input to output. A graph is stored as an integer with one bit per possible edge. Among all
orders of the inner vertices, the canonical one gives the smallest integer. The labels of a cell are
the operators of its inner vertices. If several labellings of a graph are equal up to a symmetry,
the lexicographically first one is canonical.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError

__all__ = ["MAX_EDGES", "MAX_VERTICES", "CellGraph", "canonical_cell", "graphs_of", "pruned"]

MAX_VERTICES, MAX_EDGES = 7, 9  # 1902.09635, section 2.2

Bits = NDArray[np.int64]


@dataclass(frozen=True)
class CellGraph:
    """A canonical graph.

    edges: ascending pairs (source, target).
    symmetries: permutations of the inner vertices (numbered from 0) that keep the graph; the
        identity comes first.
    """

    n_vertices: int
    edges: tuple[tuple[int, int], ...]
    symmetries: tuple[tuple[int, ...], ...]

    @property
    def name(self) -> str:
        """A unique name: the number of vertices, then the edges as a hexadecimal number."""
        return f"{self.n_vertices}v{_number(self.n_vertices, self.edges):x}"

    def text(self, ops: Sequence[str]) -> str:
        """The matrix and the operators of the inner vertices as JSON, in the benchmark's terms."""
        vertices = range(self.n_vertices)
        matrix = [[int((i, j) in self.edges) for j in vertices] for i in vertices]
        return json.dumps({"matrix": matrix, "ops": ["input", *ops, "output"]})

    def n_cells(self, n_labels: int) -> int:
        """Number of distinct cells with one of `n_labels` operators on every inner vertex.

        Burnside's lemma: a symmetry leaves some labellings unchanged. The number of cells is the
        number of these labellings, averaged over the symmetries.
        """
        kept = sum(int(n_labels ** _n_cycles(p)) for p in self.symmetries)
        return kept // len(self.symmetries)

    def widths(self, before: int, width: int) -> tuple[int, ...]:
        """Channels of every vertex of a cell that reads `before` channels and writes `width`.

        The output concatenates the vertices that have an edge to it, so its channels are divided
        equally among them; the first of them get one more each if there is a remainder. Every other
        vertex has the largest width among its targets (1902.09635, and its code).
        """
        n = self.n_vertices
        found = [before, *[0] * (n - 2), width]
        last = [v for v in range(1, n - 1) if (v, n - 1) in self.edges]
        for i, v in enumerate(last):
            found[v] = width // len(last) + (i < width % len(last))
        for v in range(n - 3, 0, -1):
            if v not in last:
                found[v] = max(found[target] for source, target in self.edges if source == v)
        return tuple(found)


@lru_cache(maxsize=8)
def graphs_of(n_vertices: int) -> tuple[CellGraph, ...]:
    """All canonical graphs of n vertices with at most 9 edges, sorted by their number of edges."""
    pairs = _pairs(n_vertices)
    bits = np.arange(1 << len(pairs), dtype=np.int64)
    bits = bits[np.bitwise_count(bits) <= MAX_EDGES]
    fed = np.ones((n_vertices, len(bits)), dtype=bool)
    used = np.ones((n_vertices, len(bits)), dtype=bool)
    for v in range(1, n_vertices):  # inner vertices have a source and a target
        fed[v] = (bits & _mask(pairs, lambda i, j, v=v: j == v)) > 0
    for v in range(n_vertices - 1):
        used[v] = (bits & _mask(pairs, lambda i, j, v=v: i == v)) > 0
    bits = bits[(fed & used).all(axis=0)]
    smallest = bits.copy()
    for order in _orders(n_vertices):
        renamed, is_sorted = _renamed(bits, n_vertices, order)
        smallest = np.where(is_sorted, np.minimum(smallest, renamed), smallest)
    found = np.unique(smallest)
    found = found[np.lexsort((found, np.bitwise_count(found)))]
    return tuple(_graph(n_vertices, int(number)) for number in found)


def canonical_cell(
    n_vertices: int, edges: Sequence[tuple[int, int]], labels: Sequence[Any]
) -> tuple[CellGraph, tuple[Any, ...]]:
    """The canonical graph of a cell, and the labels of its inner vertices in canonical order.

    Every vertex must lie on a path from input to output (see `pruned`). Labels must be comparable.
    """
    number = np.array([_number(n_vertices, edges)], dtype=np.int64)
    best: tuple[int, tuple[Any, ...]] | None = None
    for order in _orders(n_vertices):
        renamed, is_sorted = _renamed(number, n_vertices, order)
        if is_sorted[0]:
            moved = dict(zip(order, labels, strict=True))
            key = int(renamed[0]), tuple(moved[v] for v in sorted(moved))
            best = key if best is None else min(best, key)
    assert best is not None  # the identity is one of the orders
    return _graph(n_vertices, best[0]), best[1]


def pruned(
    matrix: Any, labels: Sequence[str], *, where: object = None
) -> tuple[int, list[tuple[int, int]], list[str]]:
    """Removes the vertices of a cell that are on no path from its input to its output.

    Returns the number of vertices, the edges, and the labels of the inner vertices.

    matrix: adjacency [n, n] of 0 and 1, upper triangular; `matrix[i][j]`: from i to j.
    labels: operators of the n - 2 inner vertices.

    Raises:
        UserError: the matrix is not square, not of 0 and 1, or not upper triangular; there are too
            many vertices or edges; the numbers of labels and vertices differ; or no path leads
            from the input to the output.
    """
    try:
        array = np.asarray(matrix)
    except ValueError:  # rows of different lengths
        array = np.asarray(None)

    def refuse(message: str, expected: str, found: object) -> UserError:
        return UserError(message, expected=expected, found=found, where=where)

    if array.ndim != 2 or array.shape[0] != array.shape[1] or len(array) < 2:
        raise refuse("not an adjacency matrix", "n rows of n numbers, n >= 2", str(matrix)[:80])
    if array.dtype.kind not in "iub" or not np.isin(array, (0, 1)).all():
        raise refuse("not an adjacency matrix", "numbers 0 and 1", str(matrix)[:80])
    array = array.astype(bool)
    if np.tril(array).any():
        i, j = np.argwhere(np.tril(array))[0].tolist()
        raise refuse(
            "the adjacency matrix is not upper triangular",
            "edges from earlier to later vertices",
            f"an edge from vertex {i} to vertex {j}",
        )
    if len(labels) != len(array) - 2:
        raise refuse(
            "the cell has a wrong number of operators",
            f"{len(array) - 2}, one per inner vertex",
            len(labels),
        )
    kept = _on_paths(array)
    if not kept:
        raise refuse(
            "the cell has no path from its input to its output",
            "edges that lead from the first to the last vertex",
            array.astype(int).tolist(),
        )
    edges = [
        (i, j)
        for i, source in enumerate(kept)
        for j, target in enumerate(kept)
        if array[source, target]
    ]
    limits = (("vertices", len(kept), MAX_VERTICES), ("edges", len(edges), MAX_EDGES))
    for what, found, most in limits:
        if found > most:
            raise refuse(f"the cell has too many {what}", f"at most {most}", found)
    return len(kept), edges, [labels[v - 1] for v in kept[1:-1]]


def _on_paths(array: NDArray[np.bool_]) -> list[int]:
    """Vertices on paths from the first to the last; empty if there is no path."""
    n = len(array)
    fed, used = {0}, {n - 1}
    for v in range(1, n):
        if any(array[u, v] for u in fed):
            fed.add(v)
    for v in range(n - 2, -1, -1):
        if any(array[v, w] for w in used):
            used.add(v)
    return sorted(fed & used) if n - 1 in fed else []


def _pairs(n_vertices: int) -> list[tuple[int, int]]:
    """The edge of every bit; the last one is the highest bit."""
    return [(i, j) for i in range(n_vertices) for j in range(i + 1, n_vertices)]


def _mask(pairs: list[tuple[int, int]], is_in: Any) -> int:
    return sum(1 << bit for bit, pair in enumerate(pairs) if is_in(*pair))


def _number(n_vertices: int, edges: Sequence[tuple[int, int]]) -> int:
    return sum(1 << bit for bit, pair in enumerate(_pairs(n_vertices)) if pair in edges)


def _orders(n_vertices: int) -> list[tuple[int, ...]]:
    """New numbers of the inner vertices 1, 2, ..., in all ways; the identity comes first."""
    return list(permutations(range(1, n_vertices - 1)))


def _renamed(bits: Bits, n_vertices: int, order: tuple[int, ...]) -> tuple[Bits, NDArray[np.bool_]]:
    """Graphs [n] with new vertex numbers, and whether their edges still lead to later vertices."""
    pairs = _pairs(n_vertices)
    place = {pair: bit for bit, pair in enumerate(pairs)}
    new = (0, *order, n_vertices - 1)
    renamed, is_sorted = np.zeros_like(bits), np.ones(len(bits), dtype=bool)
    for bit, (i, j) in enumerate(pairs):
        has = (bits >> bit) & 1
        if new[i] < new[j]:
            renamed |= has << place[new[i], new[j]]
        else:
            is_sorted &= has == 0
    return renamed, is_sorted


def _graph(n_vertices: int, number: int) -> CellGraph:
    edges = tuple(pair for bit, pair in enumerate(_pairs(n_vertices)) if number >> bit & 1)
    bits = np.array([number], dtype=np.int64)
    symmetries = []
    for order in _orders(n_vertices):
        renamed, is_sorted = _renamed(bits, n_vertices, order)
        if is_sorted[0] and renamed[0] == number:
            symmetries.append(tuple(v - 1 for v in order))
    return CellGraph(n_vertices, edges, tuple(symmetries))


def _n_cycles(permutation: Sequence[int]) -> int:
    seen: set[int] = set()
    n = 0
    for start in range(len(permutation)):
        n += start not in seen
        while start not in seen:
            seen.add(start)
            start = permutation[start]
    return n
