"""Segment-wise search that keeps the best few super-cells (2004.08423, figure 2).

Choices are fixed in order, one segment at a time. A candidate is a kept prefix continued by one
combination of the choices of the segment. It is scored by the mean reward of random completions.
The best `keep` candidates become the super-cells that the next segment continues. As in 2004.08423,
the reward comes from a predictor fitted on supernet scores (here the GCN).
"""

from __future__ import annotations

from itertools import product
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.core.rng import rng
from hwnas.interfaces import FloatArray, SearcherContext
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["Config", "Segments", "build"]


class Config(StrictModel):
    """Settings of the segment-wise search.

    Candidates are the kept super-cells times the combinations of the segment's choices. A segment
    has as many choices as give at most `candidates` of them, and at least one choice. Each
    candidate is tested in `completions` random archs. After the last segment the search starts
    again with other completions, until the budget is spent.
    """

    name: Literal["segments"] = "segments"
    keep: Annotated[int, Field(ge=1, le=1000)] = 6
    """Number of the best partial archs (super-cells in 2004.08423, which keeps 6) that are kept
    after each segment. A segment is a group of consecutive choices.
    """
    candidates: Annotated[int, Field(ge=2, le=1_000_000)] = 64
    """Largest number of candidates of a segment: kept partial archs times the combinations of its
    choices. It determines the length of a segment; a segment of one choice can have more.
    """
    completions: Annotated[int, Field(ge=1, le=1000)] = 4
    """Number of random archs in which each partial arch is tested; their mean reward counts."""


def build(config: Config, context: SearcherContext) -> Segments:
    """A segment-wise search of the space, at its first segment."""
    return Segments(config, context.space, context.seed)


class Segments:
    """A segment-wise search.

    Its state is the pass, the first choice of the segment, the kept super-cells, and rewards.
    """

    def __init__(self, config: Config, space: SearchSpace, seed: int) -> None:
        self._config, self._space, self._seed = config, space, seed
        self._pass = self._begin = self._n_asked = 0
        self._kept = np.zeros((1, len(space.choices)), dtype=np.int16)
        self._rewards: list[float] = []

    def ask(self, n: int) -> Codes:
        """The next completions of the candidates of the current segment."""
        codes = self._proposals()[1][self._n_asked : self._n_asked + n]
        self._n_asked += len(codes)
        return codes

    def tell(self, codes: Codes, rewards: FloatArray, objectives: FloatArray | None = None) -> None:
        """Collects rewards. When all proposals of a segment have one, keeps its best candidates."""
        self._rewards += rewards.tolist()
        candidates, proposals = self._proposals()
        if len(self._rewards) < len(proposals):
            return
        means = np.array(self._rewards).reshape(-1, len(candidates)).mean(axis=0)
        self._kept = candidates[np.argsort(-means, kind="stable")[: self._config.keep]]
        self._begin, self._n_asked, self._rewards = self._end(), 0, []
        if self._begin == len(self._space.choices):
            self._pass, self._begin = self._pass + 1, 0
            self._kept = np.zeros((1, self._kept.shape[1]), dtype=np.int16)

    def _end(self) -> int:
        """Index after the segment's last choice; a segment has at least one choice."""
        n, end = len(self._kept), self._begin
        while end < len(self._space.choices):
            n *= len(self._space.allowed[end])
            if n > self._config.candidates and end > self._begin:
                break
            end += 1
        return end

    def _proposals(self) -> tuple[Codes, Codes]:
        """Candidates [c, d] of the segment, 0 after it, and their completions [c * times, d]."""
        begin, end = self._begin, self._end()
        grid = np.array(list(product(*self._space.allowed[begin:end])), dtype=np.int16)
        grown = np.repeat(self._kept, len(grid), axis=0)
        grown[:, begin:end] = np.tile(grid, (len(self._kept), 1))
        grown = self._space.normalise(grown)  # parents come before their children
        candidates = grown[np.sort(np.unique(grown, axis=0, return_index=True)[1])]
        stream = rng(self._seed, "search/segments", self._pass, begin)
        drawn = np.stack(
            [
                stream.choice(allowed, size=self._config.completions)
                for allowed in self._space.allowed
            ],
            axis=1,
        ).astype(np.int16)
        # the same completions for every candidate, so that their contribution cancels
        codes = np.repeat(drawn, len(candidates), axis=0)
        codes[:, :end] = np.tile(candidates[:, :end], (len(drawn), 1))
        return candidates, self._space.normalise(codes)

    def state(self) -> dict[str, Any]:
        """Pass, first choice of the segment, proposed archs, kept super-cells and rewards."""
        return {
            "pass": self._pass,
            "begin": self._begin,
            "n_asked": self._n_asked,
            "kept": self._kept.tolist(),
            "rewards": self._rewards,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self._pass, self._begin = state["pass"], state["begin"]
        self._n_asked, self._rewards = state["n_asked"], list(state["rewards"])
        self._kept = np.array(state["kept"], dtype=np.int16)
