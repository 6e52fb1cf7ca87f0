"""Architectures as batches of graphs: one node per slot, forward edges, one global node.

The recipe of BRP-NAS (2007.08668, section 3.1): a global node that every node talks to, self loops,
row-normalised adjacency. A node's features are its operator's row in one table, so a batch is the
integer array of `op_index` plus its adjacency; no Python runs per arch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces.cost import op_macs, op_params
from hwnas.spaces.graphs import Edges, slot_graph
from hwnas.spaces.index import enumerate_ops, op_index
from hwnas.spaces.ops import OpKind, OpSpec
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["GraphBatch", "graph_batch", "op_features", "space_features"]


@dataclass(frozen=True)
class GraphBatch:
    """n graphs of p slots and a global node, which comes last.

    nodes: int32 [n, p + 1], rows of the space's feature table: operators, then the absent operator,
        then the global node.
    adjacency: float32 [n, p + 1, p + 1], rows of present nodes sum to 1, those of absent ones to 0.
    """

    nodes: NDArray[np.int32]
    adjacency: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> GraphBatch:
        return GraphBatch(self.nodes[rows], self.adjacency[rows])


def op_features(ops: Sequence[OpSpec]) -> NDArray[np.float32]:
    """float32 [len(ops), f]: every varying property of the operators, standardised over them.

    Kind, activation and kernel are one-hot; channels, map sizes, MACs and parameters log(1 + x).
    """
    kernels = sorted({op.kernel for op in ops})
    acts = sorted({op.act for op in ops})
    rows = [
        [
            *(op.kind == kind for kind in get_args(OpKind)),
            *(op.kernel == kernel for kernel in kernels),
            *(op.act == act for act in acts),
            op.stride,
            op.skip,
            op.se_channels > 0,
            *np.log1p([op.in_channels, op.mid_channels, op.out_channels, op.in_hw, op.out_hw]),
            *np.log1p([op_macs(op), op_params(op)]),
        ]
        for op in ops
    ]
    features = np.asarray(rows, dtype=np.float64)
    spread = features.std(axis=0)
    varying = spread > 1e-9
    standardised = (features - features.mean(axis=0))[:, varying] / spread[varying]
    return np.asarray(standardised, dtype=np.float32)


def space_features(space: SearchSpace) -> NDArray[np.float32]:
    """float32 [n_ops + 2, f]: the table that `GraphBatch.nodes` indexes.

    The absent operator and the global node have zero features; a network learns their embedding
    from their position.
    """
    return np.pad(op_features(enumerate_ops(space)), ((0, 2), (0, 0)))


def graph_batch(space: SearchSpace, codes: Codes) -> GraphBatch:
    """Graphs of a batch of archs: the chain of their operators, or the DAG of their cell."""
    shape = slot_graph(space)
    slots = op_index(space, codes)[:, shape.slots]
    return with_global_node(slots, shape.edges(slots >= 0), n_ops=len(enumerate_ops(space)))


def with_global_node(slots: NDArray[np.int32], edges: Edges, *, n_ops: int) -> GraphBatch:
    """Add the global node and self loops, and normalise the rows.

    `slots`: [n, p] operators, -1 = absent; `edges` joins present slots only.
    """
    n, p = slots.shape
    nodes = np.full((n, p + 1), n_ops + 1, dtype=np.int32)
    nodes[:, :p] = np.where(slots >= 0, slots, n_ops)
    adjacency = np.zeros((n, p + 1, p + 1), dtype=np.float32)
    adjacency[:, :p, :p] = edges
    diagonal = np.arange(p)
    adjacency[:, diagonal, diagonal] = adjacency[:, p, :p] = slots >= 0
    adjacency[:, p, p] = 1
    adjacency /= np.maximum(adjacency.sum(axis=2, keepdims=True), 1)
    return GraphBatch(nodes, adjacency)
