"""Converts archs to graphs for predictors, and finds archs whose logits ignore the image."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces.arch import Arch
from hwnas.spaces.choice import Codes
from hwnas.spaces.index import op_index
from hwnas.spaces.network import Edge, edge_list
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.skeleton import Edges, SlotGraph

if TYPE_CHECKING:
    from hwnas.spaces.space import SearchSpace

__all__ = ["graph", "is_connected", "live_graph", "slot_graph", "smallest_connected"]


@lru_cache(maxsize=32)
def slot_graph(space: SearchSpace) -> SlotGraph:
    """The slots and edges that predictors see (`Skeleton.predictor_graph`)."""
    return space.macro.predictor_graph()


def graph(space: SearchSpace, arch: Arch) -> tuple[tuple[OpSpec, ...], tuple[Edge, ...]]:
    """Nodes and directed edges (source, reader) of one arch, in execution order.

    Raises:
        UserError: the arch does not belong to the space.
    """
    space.check(arch)
    shape = slot_graph(space)
    all_ops = space.macro.lower_slots(arch.codes)
    ops = [all_ops[slot] for slot in shape.slots]
    present = np.array([[op is not None for op in ops]])
    linked = np.array([[all_ops[slot] is not None for slot, _, _ in shape.links]], dtype=bool)
    edges = edge_list(shape.edges(present, linked)[0], present[0])
    return tuple(op for op in ops if op is not None), edges


def live_graph(space: SearchSpace, codes: Codes) -> tuple[NDArray[np.int32], Edges]:
    """Operators [n, p] (-1 = absent) and edges [n, p, p] on paths from the first slot to the last.

    The first and the last slot are always included. In a chain, every operator is on the path.
    """
    shape = slot_graph(space)
    index = op_index(space, codes)
    slots = index[:, shape.slots]
    edges = shape.edges(slots >= 0, index[:, [slot for slot, _, _ in shape.links]] >= 0)
    if shape.reads is None:
        return slots, edges
    n, p = slots.shape
    is_fed, is_used = np.zeros((2, n, p), dtype=bool)
    is_fed[:, 0] = is_used[:, -1] = True
    for i in range(1, p):
        is_fed[:, i] = (edges[:, i, :i] & is_fed[:, :i]).any(axis=1)
        j = p - 1 - i
        is_used[:, j] = (edges[:, j + 1 :, j] & is_used[:, j + 1 :]).any(axis=1)
    live = is_fed & is_used
    live[:, [0, -1]] = True
    return np.where(live, slots, -1), edges & live[:, :, None] & live[:, None, :]


def is_connected(space: SearchSpace, codes: Codes) -> NDArray[np.bool_]:
    """Which archs have a path from the image to the logits, bool [n].

    In a chain, every arch has one. The logits of an arch without it do not depend on the image.
    """
    if slot_graph(space).reads is None:
        return np.ones(len(codes), dtype=bool)
    return np.asarray(live_graph(space, codes)[1][:, -1].any(axis=1))


@lru_cache(maxsize=32)
def smallest_connected(space: SearchSpace) -> Arch:
    """The smallest arch with a path from the image to the logits.

    This is `space.smallest()` if it has such a path. If not, as few choices as possible get their
    second value to create a path. Among equally many choices, those in later columns are preferred.
    """
    smallest = np.array(space.smallest().codes, dtype=np.int16)
    open_columns = [column for column, codes in enumerate(space.allowed) if len(codes) > 1]
    for n_raised in range(len(open_columns) + 1):
        for columns in combinations(reversed(open_columns), n_raised):
            raised = smallest.copy()
            for column in columns:
                raised[column] = space.allowed[column][1]
            arch = space.arch(raised)
            if is_connected(space, space.codes([arch]))[0]:
                return arch
    return space.smallest()
