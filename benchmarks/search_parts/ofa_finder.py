"""The `ofa` package's EvolutionFinder, fed with the problem's own functions."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from hwnas.interfaces import FloatArray
from hwnas.spaces.space import Codes
from search_parts.problem import Problem

__all__ = ["ofa_points"]

N_STAGES, N_BLOCKS = 5, 4


def ofa_points(problem: Problem, n: int, seed: int) -> FloatArray:
    """Objectives [<= n, 2] of every arch that its accuracy function was asked for.

    The finder answers one latency limit per run, so the budget is split evenly over limits at
    quantiles of uniform archs' latencies (tighter ones hang: it rejects without end).
    """
    from ofa.tutorial.evolution_finder import EvolutionFinder

    random.seed(seed)
    np.random.seed(seed)
    uniform = problem.space.sample(1000, rng=np.random.default_rng(seed))
    n_limits, population = (5, 50) if n <= 1000 else (10, 50)
    told: list[FloatArray] = []

    class Latency:
        def predict_efficiency(self, sample: dict[str, Any]) -> float:
            return float(problem.latency_ms(_codes(problem, [sample]))[0])

    class Accuracy:
        def predict_accuracy(self, samples: list[dict[str, Any]]) -> FloatArray:
            told.append(problem.objectives(_codes(problem, samples)))
            return -told[-1][:, 0]

    for quantile in np.linspace(0.02, 0.98, n_limits):
        finder = EvolutionFinder(
            "flops",
            200,  # replaced: the constructor asks on the terminal about limits it does not know
            Latency(),
            Accuracy(),
            population_size=population,
            max_time_budget=n // n_limits // population - 1,
        )
        finder.set_efficiency_constraint(float(np.quantile(problem.latency_ms(uniform), quantile)))
        finder.arch_manager.resolutions = [224]
        finder.run_evolution_search()
    return np.concatenate(told)


def _codes(problem: Problem, samples: list[dict[str, Any]]) -> Codes:
    columns = {choice.name: column for column, choice in enumerate(problem.space.choices)}
    codes = np.repeat(problem.space.codes([problem.space.smallest()]), len(samples), axis=0)
    for row, sample in zip(codes, samples, strict=True):
        for s in range(N_STAGES):
            row[columns[f"stage{s + 1}.depth"]] = sample["d"][s] - 2
            for b in range(N_BLOCKS):
                name = f"stage{s + 1}.block{b}"
                row[columns[f"{name}.kernel"]] = (3, 5, 7).index(sample["ks"][N_BLOCKS * s + b])
                row[columns[f"{name}.expand"]] = (3, 4, 6).index(sample["e"][N_BLOCKS * s + b])
    return problem.space.normalise(codes)
