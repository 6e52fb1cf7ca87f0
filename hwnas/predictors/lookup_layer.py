"""The first layer of a network on one-hot choices, as sums of rows of a table."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["LookupLayer"]

MAX_ROWS = 256
"""Rows of the table of one group of choices: few, so that the tables stay in the cache.

Microseconds per arch of mobilenet_v3 at 224 px, 256 units, with 16, 64, 256, 1,024 and 4,096 rows:
0.73, 0.60, 0.53, 0.56 and 0.58. The one-hot matrix and its product take 2.0 to 2.9.
"""


class LookupLayer:
    """Equals `space.encode(codes) @ weight + bias`, and is several times faster.

    Neighbouring choices form groups. For each combination of values of a group, the table has the
    sum of their rows of `weight`; an inactive choice adds nothing. So an arch needs one row per
    group, and neither its one-hot choices nor a product.

    Args:
        space: the space of the codes.
        weight: [f, units], one row per value of every choice, in the order of `space.encode`.
        bias: [units].
    """

    def __init__(
        self, space: SearchSpace, weight: NDArray[np.float32], bias: NDArray[np.float32]
    ) -> None:
        self._space = space
        rows = np.split(weight, np.cumsum([len(choice.values) for choice in space.choices])[:-1])
        absent = np.zeros((1, weight.shape[1]), dtype=np.float32)
        states = [
            own if choice.parent is None else np.concatenate([own, absent])
            for choice, own in zip(space.choices, rows, strict=True)
        ]
        self._inactive = np.array([len(own) for own in rows], dtype=np.int16)
        groups = _groups([len(own) for own in states])
        tables = [_sums([states[column] for column in group]) for group in groups]
        tables[0] = tables[0] + bias
        self._table = torch.from_numpy(np.concatenate(tables))
        self._firsts = np.cumsum([0, *(len(table) for table in tables)])[:-1]
        self._radix = np.zeros((len(states), len(groups)), dtype=np.float32)
        for place, group in enumerate(groups):
            sizes = [len(states[column]) for column in group]
            self._radix[group, place] = np.cumprod([1, *sizes[:0:-1]])[::-1]

    def __call__(self, codes: Codes) -> NDArray[np.float32]:
        """Units of each arch: [n, units]."""
        states = np.where(self._space.active(codes), codes, self._inactive).astype(np.float32)
        rows = (states @ self._radix).astype(np.int64) + self._firsts
        return F.embedding_bag(torch.from_numpy(rows), self._table, mode="sum").numpy()


def _groups(sizes: list[int]) -> list[list[int]]:
    """Columns of neighbouring choices whose numbers of states multiply to at most `MAX_ROWS`."""
    groups: list[list[int]] = [[]]
    n_rows = 1
    for column, size in enumerate(sizes):
        if groups[-1] and n_rows * size > MAX_ROWS:
            groups.append([])
            n_rows = 1
        groups[-1].append(column)
        n_rows *= size
    return groups


def _sums(states: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """A row for each combination of states, the last choice fastest: sums of their rows."""
    total = states[0]
    for own in states[1:]:
        total = (total[:, None] + own).reshape(-1, own.shape[1])
    return total
