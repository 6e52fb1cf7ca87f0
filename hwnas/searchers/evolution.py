"""Evolution by tournaments, crossover and mutation; the old or the unfit leave the population."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.core.rng import rng
from hwnas.interfaces import FloatArray
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["Config", "Evolution", "build"]

MAX_REPAIRS = 4  # extra mutations of children that repeat a member of the population

Probability = Annotated[float, Field(ge=0, le=1)]


class Config(StrictModel):
    """`population` archs survive a generation; until there are as many, proposals are uniform.

    `survival`: `elitist` keeps the best of parents and children (mu + lambda); `aging` keeps the
    youngest (regularised evolution, Real et al. 1802.01548), which forgets lucky scores.
    """

    name: Literal["evolution"] = "evolution"
    survival: Literal["elitist", "aging"] = "elitist"
    population: Annotated[int, Field(ge=2, le=100_000)] = 64
    tournament: Annotated[int, Field(ge=1, le=1000, description="contestants per parent")] = 4
    mutation: Annotated[Probability, Field(description="of each choice of a child")] = 0.1
    crossover: Annotated[Probability, Field(description="of a child having two parents")] = 0.5


def build(config: Config, *, space: SearchSpace, seed: int) -> Evolution:
    """An evolutionary search over `space`, starting from an empty population."""
    return Evolution(config, space, seed)


class Evolution:
    """State: population (best first, or oldest first if aging), its rewards, the generation."""

    def __init__(self, config: Config, space: SearchSpace, seed: int) -> None:
        self._config, self._space, self._seed = config, space, seed
        self._generation = 0
        self._codes: Codes = space.codes([])
        self._rewards: FloatArray = np.empty(0)

    def ask(self, n: int) -> Codes:
        """n children of the current population, or n uniform archs while it is not full."""
        stream = rng(self._seed, "search/evolution", self._generation)
        if len(self._codes) < self._config.population:
            return self._space.sample(stream, n)
        mothers, fathers = self._parents(stream, n), self._parents(stream, n)
        mixed = self._space.crossover(mothers, fathers, stream)
        is_mixed = stream.random((n, 1)) < self._config.crossover
        children = np.where(is_mixed, mixed, mothers)
        children = self._space.mutate(children, stream, self._config.mutation)
        for _ in range(MAX_REPAIRS):
            repeats = self._repeats(children)
            if not repeats.any():
                break
            children[repeats] = self._space.mutate(children[repeats], stream, self._config.mutation)
        return children

    def _parents(self, stream: np.random.Generator, n: int) -> Codes:
        contestants = stream.integers(len(self._codes), size=(n, self._config.tournament))
        best = self._rewards[contestants].argmax(axis=1)
        winners: Codes = self._codes[contestants[np.arange(n), best]]
        return winners

    def _repeats(self, children: Codes) -> NDArray[np.bool_]:
        """bool [n]: children equal to a member of the population or to an earlier child."""
        both = np.concatenate([self._codes, children])
        repeats = np.ones(len(both), dtype=bool)
        repeats[self._distinct(both)] = False
        return repeats[len(self._codes) :]

    def _distinct(self, codes: Codes) -> NDArray[np.intp]:
        """First row of every distinct arch, ascending."""
        first: dict[bytes, int] = {}
        for row, key in enumerate(self._space.keys(codes)):
            first.setdefault(key, row)
        return np.fromiter(first.values(), dtype=np.intp, count=len(first))

    def tell(self, codes: Codes, rewards: FloatArray) -> None:
        """Merge children into the population and let the surplus leave it."""
        both = np.concatenate([self._codes, codes])
        values = np.concatenate([self._rewards, rewards])
        if self._config.survival == "elitist":
            distinct = self._distinct(both)
            best = distinct[np.argsort(-values[distinct], kind="stable")]
            kept = best[: self._config.population]
        else:
            kept = np.arange(len(both))[-self._config.population :]
        self._codes, self._rewards = both[kept], values[kept]
        self._generation += 1

    def state(self) -> dict[str, Any]:
        """Population, rewards and generation."""
        return {
            "generation": self._generation,
            "codes": self._codes.tolist(),
            "rewards": self._rewards.tolist(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self._generation = state["generation"]
        shape = (-1, len(self._space.choices))
        self._codes = np.asarray(state["codes"], dtype=np.int16).reshape(shape)
        self._rewards = np.asarray(state["rewards"], dtype=np.float64)
