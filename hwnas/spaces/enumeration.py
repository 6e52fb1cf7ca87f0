"""Numbers every arch of a space: archs from ranks and ranks from archs, vectorised.

Choices form a tree, because a code of a choice can activate other choices, its children. The number
of configurations of a code is the product over the children that it activates. That of a choice is
the sum over its codes. The rank of an arch is a mixed-radix number with these counts as radices.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["MAX_SIZE", "rank", "unrank"]

MAX_SIZE = 2**40
"""Largest number of archs that can be ranked, so that ranks are exact in int64."""


def unrank(space: SearchSpace, ranks: NDArray[np.int64]) -> Codes:
    """The archs [n, d] with these ranks in [0, space.size())."""
    if space.macro.has_duplicates:
        return space.listed[ranks]
    tree = _tree(space)
    codes = np.zeros((len(ranks), len(space.choices)), dtype=np.int16)

    def place(column: int, rows: NDArray[np.intp], local: NDArray[np.int64]) -> None:
        ends = np.cumsum(tree.counts(column))
        which = np.searchsorted(ends, local, side="right")
        local = local - tree.starts(column)[which]
        for position, code in enumerate(space.allowed[column]):
            chosen = which == position
            codes[rows[chosen], column] = code
            rest = local[chosen]
            for child in tree.active(column, code):
                total = tree.total(child)
                place(child, rows[chosen], rest % total)
                rest = rest // total

    everything = np.arange(len(ranks))
    for root in tree.children[None]:
        total = tree.total(root)
        place(root, everything, ranks % total)
        ranks = ranks // total
    return codes


def rank(space: SearchSpace, codes: Codes) -> NDArray[np.int64]:
    """Ranks [n] of archs [n, d]: the inverse of `unrank`.

    Raises:
        UserError: an arch is not in the space.
    """
    outside = ~space.validate(codes)
    if outside.any():
        raise UserError(
            "some archs are not in the space",
            expected="archs whose codes the space allows",
            found=f"other codes in {int(outside.sum())} of {len(codes)} archs, first the codes "
            + ",".join(map(str, codes[outside][0].tolist())),
            where=space.id,
        )
    if space.macro.has_duplicates:
        known = {key: i for i, key in enumerate(space.keys(space.listed))}
        return np.array([known[key] for key in space.keys(codes)], dtype=np.int64)
    tree = _tree(space)

    def number(column: int, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        local = np.zeros(len(rows), dtype=np.int64)
        picked = codes[rows, column]
        for code, start in zip(space.allowed[column], tree.starts(column).tolist(), strict=True):
            chosen = picked == code
            local[chosen] = start + mixed(tree.active(column, code), rows[chosen])
        return local

    def mixed(columns: list[int], rows: NDArray[np.intp]) -> NDArray[np.int64]:
        result, radix = np.zeros(len(rows), dtype=np.int64), 1
        for column in columns:
            result += radix * number(column, rows)
            radix *= tree.total(column)
        return result

    return mixed(tree.children[None], np.arange(len(codes)))


class _Tree:
    """Choices below their parents, and the number of configurations of each subtree."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self.children: dict[int | None, list[int]] = {}
        for column, choice in enumerate(space.choices):
            self.children.setdefault(choice.parent, []).append(column)
        self._counts: dict[int, list[int]] = {}

    def active(self, column: int, code: int) -> list[int]:
        """Child choices that a code of a choice activates."""
        below = self.children.get(column, [])
        return [child for child in below if code in self._space.choices[child].parent_codes]

    def counts(self, column: int) -> list[int]:
        """Configurations of the subtree, per allowed code."""
        if column not in self._counts:
            self._counts[column] = [
                math.prod(self.total(child) for child in self.active(column, code))
                for code in self._space.allowed[column]
            ]
        return self._counts[column]

    def total(self, column: int) -> int:
        """Number of configurations of the subtree."""
        return sum(self.counts(column))

    def starts(self, column: int) -> NDArray[np.int64]:
        """Rank of the first configuration of each allowed code."""
        return np.cumsum([0, *self.counts(column)[:-1]], dtype=np.int64)


@lru_cache(maxsize=8)
def _tree(space: SearchSpace) -> _Tree:
    """Raises UserError if the space has too many archs to rank."""
    if space.size() > MAX_SIZE:
        raise UserError(
            "the space is too large to be enumerated",
            expected=f"at most {MAX_SIZE:.2g} archs",
            found=f"{space.size():.2g} archs",
            where=space.id,
            fix="restrict the space",
        )
    return _Tree(space)
