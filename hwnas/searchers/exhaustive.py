"""Every arch of the space once, in an order that the seed shuffles."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hwnas.core.config import StrictModel
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.interfaces import FloatArray
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["Config", "Exhaustive", "build", "unrank"]

MAX_SIZE = 2**40  # hours at a million archs a second; also keeps ranks exact in int64


class Config(StrictModel):
    """No parameters."""

    name: Literal["exhaustive"] = "exhaustive"


def build(config: Config, *, space: SearchSpace, seed: int) -> Exhaustive:
    """An enumeration of `space`.

    Raises:
        UserError: the space is too large to be enumerated.
    """
    if space.size() > MAX_SIZE:
        raise UserError(
            "the space is too large to be enumerated",
            expected=f"at most {MAX_SIZE:.2g} archs",
            found=f"{space.size():.2g}",
            where=space.id,
            fix="restrict the space, or search it with `exact` or `evolution`",
        )
    return Exhaustive(space, seed)


def unrank(space: SearchSpace, ranks: NDArray[np.int64]) -> Codes:
    """The archs [n, d] with these ranks in [0, space.size()), each arch having one rank.

    A choice's subtree has as many configurations as its codes have products over the children that
    they activate; ranks are mixed-radix numbers in these counts.
    """
    children: dict[int | None, list[int]] = {}
    for column, choice in enumerate(space.choices):
        children.setdefault(choice.parent, []).append(column)

    def active(column: int, code: int) -> list[int]:
        below = children.get(column, [])
        return [child for child in below if code in space.choices[child].parent_codes]

    def counts(column: int) -> list[int]:
        """Configurations of the subtree, by allowed code."""
        return [
            math.prod(sum(counts(child)) for child in active(column, code))
            for code in space.allowed[column]
        ]

    codes = np.zeros((len(ranks), len(space.choices)), dtype=np.int16)

    def place(column: int, rows: NDArray[np.intp], local: NDArray[np.int64]) -> None:
        ends = np.cumsum(counts(column))
        which = np.searchsorted(ends, local, side="right")
        local = local - (ends - np.array(counts(column), dtype=np.int64))[which]
        for position, code in enumerate(space.allowed[column]):
            chosen = which == position
            codes[rows[chosen], column] = code
            rest = local[chosen]
            for child in active(column, code):
                total = sum(counts(child))
                place(child, rows[chosen], rest % total)
                rest = rest // total

    everything = np.arange(len(ranks))
    for root in children[None]:
        total = sum(counts(root))
        place(root, everything, ranks % total)
        ranks = ranks // total
    return codes


class Exhaustive:
    """State: how many archs were proposed. Rank i of the order is (a i + b) mod size."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space, self._size, self._n = space, space.size(), 0
        stream = rng(seed, "search/exhaustive")
        self._shift = int(stream.integers(self._size))
        self._step = 1 + int(stream.integers(self._size))
        while math.gcd(self._step, self._size) > 1:
            self._step += 1

    def ask(self, n: int) -> Codes:
        """The next n archs; fewer at the end, then none."""
        last = min(self._n + n, self._size)
        order = range(self._n, last)
        self._n = last
        ranks = [(self._step * i + self._shift) % self._size for i in order]
        return unrank(self._space, np.array(ranks, dtype=np.int64))

    def tell(self, codes: Codes, rewards: FloatArray, objectives: FloatArray | None = None) -> None:
        """Nothing is learned."""

    def state(self) -> dict[str, Any]:
        """How many archs were proposed."""
        return {"n": self._n}

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self._n = state["n"]
