"""Uniform random search without repeats: the baseline for every searcher."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from hwnas.core.config import StrictModel
from hwnas.core.rng import rng
from hwnas.interfaces import FloatArray, SearcherContext
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["Config", "RandomSearch", "build"]

EXEMPT = {"beats_random": "it is the baseline"}

MAX_REDRAWS = 64  # batches per ask before it gives up finding new archs
MIN_DRAW = 256  # rows per redraw; small asks then still find the last archs


class Config(StrictModel):
    """No parameters."""

    name: Literal["random"] = "random"


def build(config: Config, context: SearcherContext) -> RandomSearch:
    """A random search over the space."""
    return RandomSearch(context.space, context.seed)


class RandomSearch:
    """Draws as `SearchSpace.sample` does and drops archs proposed before.

    Its state is the sizes of past asks; loading the state draws the same proposals again. So the
    state is small, and past proposals are known exactly.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space, self._seed, self._size = space, seed, space.size()
        self._asked: list[int] = []
        self._seen: set[bytes] = set()

    def ask(self, n: int) -> Codes:
        """Up to n archs that were never proposed; fewer if (nearly) all archs were proposed."""
        stream = rng(self._seed, "search/random", len(self._asked))
        self._asked.append(n)
        batches = [self._space.codes([])]
        for _ in range(MAX_REDRAWS):
            missing = n - sum(map(len, batches))
            if missing == 0 or len(self._seen) == self._size:
                break
            batches.append(self._unseen(stream, max(missing, MIN_DRAW), missing))
        return np.concatenate(batches)

    def _unseen(self, stream: np.random.Generator, n_draws: int, limit: int) -> Codes:
        codes = self._space.sample(n_draws, rng=stream)
        fresh: list[int] = []
        for row, key in enumerate(self._space.keys(codes)):
            if len(fresh) < limit and key not in self._seen:
                self._seen.add(key)
                fresh.append(row)
        return codes[fresh]

    def tell(self, codes: Codes, rewards: FloatArray, objectives: FloatArray | None = None) -> None:
        """Does nothing, because random search does not learn."""

    def state(self) -> dict[str, Any]:
        """The sizes of all past calls of `ask`."""
        return {"asked": list(self._asked)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state`; draws the past proposals again."""
        self._asked, self._seen = [], set()
        for n in state["asked"]:
            self.ask(n)
