"""Uniform random search without repeats: the baseline that every searcher is compared with."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from hwnas.core.config import StrictModel
from hwnas.core.rng import rng
from hwnas.interfaces import FloatArray, SearcherContext
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["Config", "RandomSearch", "build"]

EXEMPT = {"beats_random": "it is the baseline"}

MAX_REDRAWS = 64  # batches drawn per ask before giving up on archs that were not seen yet
MIN_DRAW = 256  # rows of a redraw: small asks on nearly exhausted spaces still find what is left


class Config(StrictModel):
    """No parameters."""

    name: Literal["random"] = "random"


def build(config: Config, context: SearcherContext) -> RandomSearch:
    """A random search over the space."""
    return RandomSearch(context.space, context.seed)


class RandomSearch:
    """Draws as `SearchSpace.sample` does and drops what it proposed before.

    Its state is the sizes of past asks: loading it redraws them, so that a state stays small and
    the memory of past proposals is exact.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space, self._seed, self._size = space, seed, space.size()
        self._asked: list[int] = []
        self._seen: set[bytes] = set()

    def ask(self, n: int) -> Codes:
        """Up to n archs that were never proposed; fewer when (nearly) all of the space was."""
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
        """Nothing is learned."""

    def state(self) -> dict[str, Any]:
        """Sizes of all asks so far."""
        return {"asked": list(self._asked)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state`, by drawing the past again."""
        self._asked, self._seen = [], set()
        for n in state["asked"]:
            self.ask(n)
