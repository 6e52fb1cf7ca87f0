"""NSGA-II of pymoo as a searcher, for comparisons."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from hwnas.core.rng import stable_seed
from hwnas.interfaces import FloatArray, SearcherContext
from hwnas.searchers._replay import EXEMPT, ForeignConfig, Replayed
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["EXEMPT", "Config", "build"]

REQUIRES = ("pymoo",)
EXTRA = "bench"


class Config(ForeignConfig):
    """Settings of NSGA-II."""

    name: Literal["pymoo"] = "pymoo"
    population: Annotated[int, Field(ge=2, le=10_000)] = 100
    """Number of archs in the population of NSGA-II."""


def build(config: Config, context: SearcherContext) -> Replayed:
    """NSGA-II over the space, with pymoo's operators for integers."""
    return Replayed(
        _Algorithm(config, context.space, context.seed), is_front=config.objective == "front"
    )


class _Algorithm:
    """One integer variable per choice; generations can be asked and told in parts."""

    def __init__(self, config: Config, space: SearchSpace, seed: int) -> None:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.problem import Problem
        from pymoo.core.termination import NoTermination
        from pymoo.operators.crossover.sbx import SBX
        from pymoo.operators.mutation.pm import PM
        from pymoo.operators.repair.rounding import RoundingRepair
        from pymoo.operators.sampling.rnd import IntegerRandomSampling

        self._space = space
        last = np.array([len(allowed) - 1 for allowed in space.allowed])
        n = 1 + config.n_constraints if config.objective == "front" else 1
        problem = Problem(n_var=len(last), n_obj=n, xl=np.zeros(len(last)), xu=last, vtype=int)
        self._algorithm = NSGA2(
            pop_size=config.population,
            sampling=IntegerRandomSampling(),
            crossover=SBX(prob=0.9, eta=15, vtype=float, repair=RoundingRepair()),
            mutation=PM(eta=20, vtype=float, repair=RoundingRepair()),
        )
        number = stable_seed(seed, "search/pymoo") % 2**31
        self._algorithm.setup(problem, termination=NoTermination(), seed=number)
        self._generation: Any = None
        self._codes = space.codes([])
        self._n_asked = 0
        self._told: list[FloatArray] = []

    def ask(self, n: int) -> Codes:
        if n and self._n_asked == len(self._codes):
            self._generation = self._algorithm.ask()
            positions = np.rint(self._generation.get("X").astype(np.float64)).astype(np.int16)
            columns = [
                np.asarray(allowed)[positions[:, column]]
                for column, allowed in enumerate(self._space.allowed)
            ]
            self._codes = self._space.normalise(np.stack(columns, axis=1).astype(np.int16))
            self._n_asked, self._told = 0, []
        codes = self._codes[self._n_asked : self._n_asked + n]
        self._n_asked += len(codes)
        return codes

    def tell(self, objectives: FloatArray) -> None:
        self._told.append(objectives)
        if len(objectives) and self._n_asked == len(self._codes):
            values = np.concatenate(self._told)
            self._generation.set("F", values)
            for one in self._generation:
                one.evaluated = {"F", "G", "H"}
            self._algorithm.tell(infills=self._generation)
