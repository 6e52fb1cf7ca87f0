"""Samplers of Optuna (TPE, NSGA-II, random) as searchers, to compare at few thousand archs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from hwnas.core.rng import stable_seed
from hwnas.interfaces import FloatArray, SearcherContext
from hwnas.searchers._replay import EXEMPT, ForeignConfig, Replayed
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["EXEMPT", "Config", "build"]

REQUIRES = ("optuna",)
EXTRA = "bench"


class Config(ForeignConfig):
    """Settings; only NSGA-II uses `population`."""

    name: Literal["optuna"] = "optuna"
    sampler: Literal["tpe", "nsga2", "random"] = "tpe"
    """Algorithm of Optuna that proposes archs."""
    population: Annotated[int, Field(ge=2, le=10_000)] = 50
    """Number of archs in the population; only for the sampler `nsga2`."""


def build(config: Config, context: SearcherContext) -> Replayed:
    """A study over the space."""
    return Replayed(
        _Study(config, context.space, context.seed), is_front=config.objective == "front"
    )


class _Study:
    """One integer parameter per choice: the index of the allowed code."""

    def __init__(self, config: Config, space: SearchSpace, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        number = stable_seed(seed, "search/optuna") % 2**32
        samplers = optuna.samplers
        sampler = {
            "tpe": lambda: samplers.TPESampler(seed=number),
            "nsga2": lambda: samplers.NSGAIISampler(seed=number, population_size=config.population),
            "random": lambda: samplers.RandomSampler(seed=number),
        }[config.sampler]()
        n = 1 + config.n_constraints if config.objective == "front" else 1
        self._study = optuna.create_study(directions=["minimize"] * n, sampler=sampler)
        self._space = space
        self._trials: list[Any] = []

    def ask(self, n: int) -> Codes:
        self._trials = [self._study.ask() for _ in range(n)]
        rows = [
            [
                allowed[trial.suggest_int(choice.name, 0, len(allowed) - 1)]
                for choice, allowed in zip(self._space.choices, self._space.allowed, strict=True)
            ]
            for trial in self._trials
        ]
        codes = np.array(rows, dtype=np.int16).reshape(-1, len(self._space.choices))
        return self._space.normalise(codes)

    def tell(self, objectives: FloatArray) -> None:
        for trial, values in zip(self._trials, objectives.tolist(), strict=True):
            self._study.tell(trial, values)
