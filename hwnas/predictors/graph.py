"""Architectures as batches of graphs: one node per slot, edges both ways, one global node.

The design follows BRP-NAS (2007.08668, section 3.1): a global node connected to all nodes, self
loops, row-normalised adjacency. The features of a node are the row of its operator in a table. So a
batch is the integer array of `op_index` and an adjacency, and no Python code runs per arch.

There are three additions: edges in both directions, removal of operators on no path from input to
output, and a summary of the whole graph in the global node. Measured on nasbench201 records with 50
/ 100 / 400 labels (networks only, 2 seeds), tau is 0.73 / 0.78 / - with the removal alone, 0.77 /
0.78 / 0.85 with removal and summary, and 0.77 / 0.79 / 0.86 with all three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from hwnas.core.rng import rng
from hwnas.interfaces import FloatArray
from hwnas.spaces.cost import op_macs, op_params
from hwnas.spaces.graphs import live_graph
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.ops import OpKind, OpSpec
from hwnas.spaces.skeleton import Edges
from hwnas.spaces.space import Codes, SearchSpace

__all__ = [
    "GraphBatch",
    "choice_features",
    "flat_features",
    "graph_batch",
    "op_features",
    "operators",
    "space_features",
]

SCALE_ARCHS = 1024  # random archs for the standardisation of features
FLAT_VARIANCE = 9.0
"""Total variance of the features of all slots; each number of the summary has variance 1.

Measured with a Gaussian process on OFA records at 50 / 100 / 400 labels: tau 0.924 / 0.941 / 0.959
with the summary, and 0.912 / 0.934 / 0.957 without it.
"""


@dataclass(frozen=True)
class GraphBatch:
    """n graphs of p slots and a global node, which comes last.

    nodes: int32 [n, p + 1], row numbers of `space_features`: an operator, the absent operator, or
        the global node.
    reads: float32 [n, p + 1, p + 1], edges from each node to its inputs. Rows of present nodes sum
        to 1 and include the node itself; rows of absent nodes are 0. The global node reads all
        nodes.
    feeds: float32 [n, p + 1, p + 1], the reverse edges, without self loops and global node; rows
        sum to 1 or 0.
    summary: float32 [n, s], numbers about whole graphs, about zero mean and unit variance.
    """

    nodes: NDArray[np.int32]
    reads: NDArray[np.float32]
    feeds: NDArray[np.float32]
    summary: NDArray[np.float32]


def op_features(ops: Sequence[OpSpec]) -> NDArray[np.float32]:
    """All properties in which `ops` differ, float32 [len(ops), f], standardised over `ops`.

    Kind, activation and kernels are one-hot. Channels, map sizes, MACs and parameters are log(1 +
    x).
    """
    kernels = sorted({op.kernel for op in ops})
    starts = sorted({op.start_kernel for op in ops})
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
            *(op.start_kernel == kernel for kernel in starts),
            op.expand_groups,
            op.dilation,
        ]
        for op in ops
    ]
    features = np.asarray(rows, dtype=np.float64)
    spread = features.std(axis=0)
    varying = spread > 1e-9
    standardised = (features - features.mean(axis=0))[:, varying] / spread[varying]
    return np.asarray(standardised, dtype=np.float32)


@lru_cache(maxsize=32)
def space_features(space: SearchSpace) -> NDArray[np.float32]:
    """The table that `GraphBatch.nodes` indexes, float32 [n_ops + 2, f].

    The features of the absent operator and the global node are zero. A network learns their
    embedding from their position.
    """
    return np.pad(op_features(enumerate_ops(space)), ((0, 2), (0, 0)))


def graph_batch(space: SearchSpace, codes: Codes) -> GraphBatch:
    """Converts archs to graphs: the chain of their operators, or the DAG of operators that run."""
    slots, edges = live_graph(space, codes)
    n, p = slots.shape
    n_ops = len(enumerate_ops(space))
    nodes = np.full((n, p + 1), n_ops + 1, dtype=np.int32)
    nodes[:, :p] = np.where(slots >= 0, slots, n_ops)
    reads = np.zeros((n, p + 1, p + 1), dtype=np.float32)
    reads[:, :p, :p] = edges
    feeds = np.ascontiguousarray(reads.transpose(0, 2, 1))
    diagonal = np.arange(p)
    reads[:, diagonal, diagonal] = reads[:, p, :p] = slots >= 0
    reads[:, p, p] = 1
    for adjacency in (reads, feeds):
        adjacency /= np.maximum(adjacency.sum(axis=2, keepdims=True), 1)
    mean, std = _summary_scale(space)
    varying = std > 1e-9
    summary = (_summary(space, slots, edges) - mean)[:, varying] / std[varying]
    return GraphBatch(nodes, reads, feeds, np.clip(summary, -4, 4).astype(np.float32))


def flat_features(space: SearchSpace, batch: GraphBatch) -> NDArray[np.float32]:
    """Concatenated features of all slots, float32 [n, f], with total variance `FLAT_VARIANCE`."""
    mean, std = _flat_scale(space)
    flat = space_features(space)[batch.nodes[:, :-1]].reshape(len(batch.nodes), len(mean))
    return _standardised(flat, mean, std)


def operators(space: SearchSpace, codes: Codes) -> FloatArray:
    """Properties of all operators that run, and the summary of the graph, float64 [n, f]."""
    batch = graph_batch(space, codes)
    return np.hstack([flat_features(space, batch), batch.summary]).astype(np.float64)


def choice_features(space: SearchSpace, codes: Codes) -> NDArray[np.float32]:
    """One-hot choices, float32 [n, f], with total variance `FLAT_VARIANCE`."""
    return _standardised(space.encode(codes), *_choice_scale(space))


def _standardised(
    features: NDArray[np.float32], mean: FloatArray, std: FloatArray
) -> NDArray[np.float32]:
    """Columns that vary over random archs, with equal shares of `FLAT_VARIANCE`."""
    varying = std > 1e-6
    weight = np.sqrt(FLAT_VARIANCE / max(1, varying.sum()))
    scaled = (features[:, varying] - mean[varying]) / std[varying] * weight
    return np.asarray(scaled, dtype=np.float32)


@lru_cache(maxsize=32)
def _flat_scale(space: SearchSpace) -> tuple[FloatArray, FloatArray]:
    """Mean and std of the slots' features over random archs of the space."""
    nodes = graph_batch(space, _typical(space)).nodes[:, :-1]
    flat = space_features(space)[nodes].reshape(len(nodes), -1).astype(np.float64)
    return flat.mean(axis=0), flat.std(axis=0)


@lru_cache(maxsize=32)
def _choice_scale(space: SearchSpace) -> tuple[FloatArray, FloatArray]:
    """Mean and std of the one-hot choices over random archs of the space."""
    one_hot = space.encode(_typical(space)).astype(np.float64)
    return one_hot.mean(axis=0), one_hot.std(axis=0)


def _typical(space: SearchSpace) -> Codes:
    return space.sample(SCALE_ARCHS, rng=rng(0, "predictor/scale"))


def _summary(space: SearchSpace, slots: NDArray[np.int32], edges: Edges) -> FloatArray:
    """Summary [n, 6]: log MACs, log parameters, and the shape of the graph.

    The shape is the longest and the shortest path (in operators with weights), the log of the
    number of paths, and the number of nodes. It matters in cells: of two cells with equal
    operators, the depth decides which one is more accurate.
    """
    ops = enumerate_ops(space)
    macs = np.array([*map(op_macs, ops), 0], dtype=np.float64)[slots].sum(axis=1)
    params = np.array([*map(op_params, ops), 0], dtype=np.float64)[slots].sum(axis=1)
    has_weights = np.array([op_params(op) > 0 for op in ops] + [False])[slots]
    n, p = slots.shape
    longest, shortest, ways = np.zeros((3, n, p))
    ways[:, 0] = 1
    for i in range(1, p):
        sources = edges[:, i, :i]
        is_fed = sources.any(axis=1)
        most = np.where(sources, longest[:, :i], 0).max(axis=1)
        least = np.where(sources, shortest[:, :i], np.inf).min(axis=1)
        longest[:, i] = np.where(is_fed, most + has_weights[:, i], 0)
        shortest[:, i] = np.where(is_fed, least + has_weights[:, i], 0)
        ways[:, i] = (sources * ways[:, :i]).sum(axis=1)
    logs = np.log1p([macs, params, ways[:, -1]])
    return np.stack([*logs, longest[:, -1], shortest[:, -1], (slots >= 0).sum(axis=1)], axis=1)


@lru_cache(maxsize=32)
def _summary_scale(space: SearchSpace) -> tuple[FloatArray, FloatArray]:
    """Mean and std [6] of the summary over random archs of the space."""
    summary = _summary(space, *live_graph(space, _typical(space)))
    return summary.mean(axis=0), summary.std(axis=0)
