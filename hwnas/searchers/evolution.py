"""Evolution by tournaments, crossover and mutation; removes old, unfit or dominated archs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hwnas.core.config import StrictModel
from hwnas.core.pareto import crowding, ranks
from hwnas.core.rng import rng
from hwnas.interfaces import FloatArray, SearcherContext
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["Config", "Evolution", "build"]

GOLDEN_RATIO = 0.5 * (5**0.5 - 1)
MAX_REPAIRS = 4  # extra mutations of children that are already in the population

Probability = Annotated[float, Field(ge=0, le=1)]


class Config(StrictModel):
    """`population` archs survive a generation; until the population is full, proposals are uniform.

    survival: `elitist` keeps the best of parents and children (mu + lambda). `aging` keeps the
        youngest (regularised evolution, Real et al. 1802.01548), which discards lucky scores.
        `front` keeps the least dominated archs, by crowding distance among equals (NSGA-II, Deb et
        al. 2002), and prefers archs that meet all constraints. It optimises the whole front instead
        of the best arch.
    """

    name: Literal["evolution"] = "evolution"
    survival: Literal["elitist", "aging", "front"] = "elitist"
    """Archs that survive a generation. `elitist`: the best of parents and children; `aging`: the
    youngest; `front`: the least dominated, which optimises the whole front.
    """
    population: Annotated[int, Field(ge=2, le=100_000)] = 64
    """Number of archs that survive a generation."""
    tournament: Annotated[
        int,
        Field(
            ge=1,
            le=1000,
            description="Number of archs that are drawn for a parent; the best of them becomes the"
            " parent.",
        ),
    ] = 4
    mutation: Annotated[
        Probability, Field(description="Probability with which each choice of a child changes.")
    ] = 0.1
    crossover: Annotated[
        Probability,
        Field(description="Probability with which a child has two parents instead of one."),
    ] = 0.5


def build(config: Config, context: SearcherContext) -> Evolution:
    """An evolutionary search over the space, starting from an empty population."""
    return Evolution(config, context.space, context.seed)


class Evolution:
    """An evolutionary algorithm.

    Its state is the population with rewards and objectives (best first; oldest first with `aging`).
    """

    def __init__(self, config: Config, space: SearchSpace, seed: int) -> None:
        self._config, self._space, self._seed = config, space, seed
        self._generation = 0
        self._codes: Codes = space.codes([])
        self._rewards: FloatArray = np.empty(0)
        self._objectives: FloatArray = np.empty((0, 1))

    def ask(self, n: int) -> Codes:
        """n children of the current population, or n uniform archs until it is full."""
        stream = rng(self._seed, "search/evolution", self._generation)
        if len(self._codes) < self._config.population:
            if self._config.survival == "front":
                return _spread(self._space, stream, self._levels(n))
            return self._space.sample(n, rng=stream)
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

    def _levels(self, n: int) -> FloatArray:
        """Levels in [0, 1] of n archs of the first population, evenly spread.

        With fewer archs than the population, the levels of successive calls are spread together: by
        the golden ratio, which fills an interval evenly for any number of calls.
        """
        if n >= self._config.population:
            return np.linspace(0, 1, n)
        levels: FloatArray = np.mod((self._generation * n + np.arange(n)) * GOLDEN_RATIO, 1.0)
        return levels

    def _parents(self, stream: np.random.Generator, n: int) -> Codes:
        contestants = stream.integers(len(self._codes), size=(n, self._config.tournament))
        if self._config.survival == "front":  # sorted by rank and crowding
            least_dominated: Codes = self._codes[contestants.min(axis=1)]
            return least_dominated
        best = self._rewards[contestants].argmax(axis=1)
        winners: Codes = self._codes[contestants[np.arange(n), best]]
        return winners

    def _repeats(self, children: Codes) -> NDArray[np.bool_]:
        """Children equal to a member of the population or to an earlier child: bool [n]."""
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

    def tell(self, codes: Codes, rewards: FloatArray, objectives: FloatArray | None = None) -> None:
        """Merges children into the population and removes the surplus."""
        points = -rewards[:, None] if objectives is None else objectives
        both = np.concatenate([self._codes, codes])
        values = np.concatenate([self._rewards, rewards])
        told = np.concatenate([self._objectives.reshape(-1, points.shape[1]), points])
        if self._config.survival == "aging":
            kept = np.arange(len(both))[-self._config.population :]
        else:
            distinct = self._distinct(both)
            if self._config.survival == "elitist":
                order = np.argsort(-values[distinct], kind="stable")
            else:
                order = _by_dominance(told[distinct], self._config.population)
            kept = distinct[order[: self._config.population]]
        self._codes, self._rewards, self._objectives = both[kept], values[kept], told[kept]
        self._generation += 1

    def state(self) -> dict[str, Any]:
        """Population, rewards, objectives and generation."""
        return {
            "generation": self._generation,
            "codes": self._codes.tolist(),
            "rewards": self._rewards.tolist(),
            "objectives": self._objectives.tolist(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self._generation = state["generation"]
        shape = (-1, len(self._space.choices))
        self._codes = np.asarray(state["codes"], dtype=np.int16).reshape(shape)
        self._rewards = np.asarray(state["rewards"], dtype=np.float64)
        objectives = np.asarray(state["objectives"], dtype=np.float64)
        self._objectives = objectives.reshape(len(self._codes), -1 if len(self._codes) else 1)


def _spread(space: SearchSpace, stream: np.random.Generator, levels: FloatArray) -> Codes:
    """An arch for each level [n], from 0 (the smallest arch) to 1 (the largest): [n, d].

    The costs of uniform archs concentrate in the middle. Here each choice draws a value near the
    level of its arch, because values ascend in cost.
    """
    last = np.array([len(allowed) - 1 for allowed in space.allowed])
    drawn = stream.binomial(last, levels[:, None])
    columns = [np.asarray(a)[drawn[:, c]] for c, a in enumerate(space.allowed)]
    return space.normalise(np.stack(columns, axis=1).astype(np.int16))


def _by_dominance(objectives: FloatArray, n: int) -> NDArray[np.intp]:
    """Order of archs [m], m >= n: feasible ones by rank, then crowding; others by excess."""
    excess = np.maximum(objectives[:, 1:] - 1, 0).sum(axis=1)
    feasible, rest = np.flatnonzero(excess == 0), np.flatnonzero(excess > 0)
    rank = ranks(objectives[feasible], n)
    lonely = np.zeros(len(feasible))
    for level in range(rank.max(initial=-1) + 1):
        front = rank == level
        lonely[front] = crowding(objectives[feasible[front]])
    ordered = feasible[np.lexsort((-lonely, rank))]
    return np.concatenate([ordered, rest[np.argsort(excess[rest], kind="stable")]])
