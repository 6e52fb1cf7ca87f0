"""Archs as graphs of operators: chains, or the DAG of a cell."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import lower_slots, slot_names
from hwnas.spaces.macro import CellMacro
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.space import SearchSpace

__all__ = ["Edges", "SlotGraph", "chain", "graph", "slot_graph"]

Edges = NDArray[np.bool_]
"""bool [n, p, p]: `edges[:, i, j]` where slot i reads the output of slot j."""


@dataclass(frozen=True)
class SlotGraph:
    """Which slots of `lower_slots` are nodes, and who may read whom.

    reads: bool [p, p] over `slots`, between those that are present; None: every present slot reads
    the present one before it.
    """

    slots: tuple[int, ...]
    reads: Edges | None

    def edges(self, present: NDArray[np.bool_]) -> Edges:
        """bool [n, p, p] for archs whose slots are present as in bool [n, p]."""
        if self.reads is None:
            return chain(present)
        found: Edges = self.reads & present[:, :, None] & present[:, None, :]
        return found


def chain(present: NDArray[np.bool_]) -> Edges:
    """Edges of chains: every present slot of `present` [n, p] reads the present slot before it."""
    n, p = present.shape
    position = np.where(present, np.arange(p), -1)
    last = np.maximum.accumulate(position, axis=1)  # latest present slot up to here
    edges = np.zeros((n, p, p), dtype=bool)
    reader = present[:, 1:] & (last[:, :-1] >= 0)
    row, slot = np.nonzero(reader)
    edges[row, slot + 1, last[row, slot]] = True
    return edges


@lru_cache(maxsize=32)
def slot_graph(space: SearchSpace) -> SlotGraph:
    """Of a chain space, all slots in a chain; of a cell space, the DAG of its last cell.

    A cell's nodes are its edges' operators, between the stem (the cell's input) and the pooling
    (its output); all cells of an arch are equal, hence one of them says everything.
    """
    names = slot_names(space)
    if not isinstance(space.macro, CellMacro):
        return SlotGraph(tuple(range(len(names))), None)
    stage, cell = len(space.macro.widths) - 1, space.macro.cells_per_stage - 1
    n = space.macro.n_nodes
    ends = [(-1, 0), *space.macro.edges, (n - 1, n)]
    inner = [f"stage{stage}.cell{cell}.edge{i}{j}" for i, j in space.macro.edges]
    slots = tuple(names.index(name) for name in ("stem", *inner, "pool"))
    reads = np.array([[reader[0] == source[1] for source in ends] for reader in ends])
    return SlotGraph(slots, reads)


def graph(space: SearchSpace, arch: Arch) -> tuple[tuple[OpSpec, ...], tuple[tuple[int, int], ...]]:
    """Nodes and directed edges (source, reader) of one arch, in execution order.

    Raises:
        UserError: the arch is not a member of the space.
    """
    space.check(arch)
    shape = slot_graph(space)
    all_ops = lower_slots(space.macro, arch.codes)
    ops = [all_ops[slot] for slot in shape.slots]
    present = np.array([[op is not None for op in ops]])
    number = np.cumsum(present[0]) - 1
    reader, source = np.nonzero(shape.edges(present)[0])
    edges = sorted((int(number[s]), int(number[r])) for r, s in zip(reader, source, strict=True))
    return tuple(op for op in ops if op is not None), tuple(edges)
