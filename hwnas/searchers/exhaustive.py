"""Every arch of the space once, in seeded random order."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from hwnas.core.config import StrictModel
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.interfaces import FloatArray, SearcherContext
from hwnas.spaces.enumeration import MAX_SIZE, unrank
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["Config", "Exhaustive", "build"]

EXEMPT = {"beats_random": "it learns nothing"}


class Config(StrictModel):
    """No parameters."""

    name: Literal["exhaustive"] = "exhaustive"


def build(config: Config, context: SearcherContext) -> Exhaustive:
    """An enumeration of the space.

    Raises:
        UserError: the space has too many archs to enumerate.
    """
    if context.space.size() > MAX_SIZE:
        raise UserError(
            "the space is too large to be enumerated",
            expected=f"at most {MAX_SIZE:.2g} archs",
            found=f"{context.space.size():.2g} archs",
            where=context.space.id,
            fix="restrict the space, or search it with `exact` or `evolution`",
        )
    return Exhaustive(context.space, context.seed)


class Exhaustive:
    """Proposes every arch once; arch i of the order has rank (a i + b) mod size.

    Its state is the number of proposed archs.
    """

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
        """Does nothing, because the order is fixed."""

    def state(self) -> dict[str, Any]:
        """The number of proposed archs."""
        return {"n": self._n}

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self._n = state["n"]
