"""Hypervolume of accuracy and latency on mobilenet_v3 at equal numbers of predictions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from hwnas.core.pareto import hypervolume_2d
from hwnas.interfaces import FloatArray, SearcherContext
from hwnas.searchers import REGISTRY
from search_parts.cells import Cells, Settings
from search_parts.ofa_finder import ofa_points
from search_parts.problem import Problem, load_problem

__all__ = ["front"]

PREDICTORS = ("ridge", "distilled")

Points = Callable[[Problem, int, int], FloatArray]
"""Objectives of the archs that were forecast, in order, by problem, number and seed."""


def searched(name: str, **settings: Any) -> Points:
    """A registered searcher, 100 archs a generation."""

    def points(problem: Problem, n: int, seed: int) -> FloatArray:
        module = REGISTRY.load(name)
        searcher = module.build(module.Config(**settings), SearcherContext(problem.space, seed))
        told: list[FloatArray] = []
        while (missing := n - sum(map(len, told))) and len(
            codes := searcher.ask(min(100, missing))
        ):
            told.append(problem.objectives(codes))
            searcher.tell(codes, -told[-1][:, 0], told[-1])
        return np.concatenate(told)

    return points


ALL = {300: 10, 1000: 10, 5000: 10, 20000: 10}
SHORT = {1000: 10}

CONTENDERS: dict[str, tuple[Points, dict[str, dict[int, int]]]] = {
    # seeds by predictor and number of predictions: what each has time for
    "hwnas_evolution": (
        searched("evolution", survival="front", population=100, mutation=0.03, crossover=0.5),
        {"ridge": ALL, "distilled": ALL},
    ),
    "random": (searched("random"), {"ridge": ALL, "distilled": ALL}),
    "pymoo_nsga2": (searched("pymoo", objective="front"), {"ridge": ALL, "distilled": ALL}),
    "ofa_evolution_finder": (ofa_points, {"ridge": {1000: 10, 5000: 10}, "distilled": SHORT}),
    "optuna_nsga2": (
        searched("optuna", objective="front", sampler="nsga2"),
        {"ridge": {1000: 10, 5000: 3}, "distilled": SHORT},
    ),
    "optuna_tpe": (
        searched("optuna", objective="front", sampler="tpe"),
        {"ridge": {300: 3}, "distilled": {}},
    ),
}


def front(cells: Cells, settings: Settings) -> dict[str, Any]:
    """Median hypervolume per contender and mark; a share of the exact front's where known."""
    found: dict[str, Any] = {}
    for predictor in PREDICTORS:
        problem = load_problem(settings, predictor)
        exact = _exact(problem) if predictor == "ridge" else None
        unit = 1.0 if exact is None else exact["hypervolume"]
        rows: dict[str, Any] = {}
        skipped = []
        for name, (points, marks) in CONTENDERS.items():
            try:
                rows[name] = _summary(
                    cells,
                    f"{predictor}-{name}",
                    problem,
                    points,
                    marks[predictor],
                    settings.seeds,
                    unit,
                )
            except (ImportError, LookupError) as error:
                skipped.append(f"{name}: {error}")
        found[predictor] = {"device": problem.device, "exact": exact, **rows, "skipped": skipped}
    return found


def _summary(
    cells: Cells,
    name: str,
    problem: Problem,
    points: Points,
    marks: dict[int, int],
    most_seeds: int | None,
    unit: float,
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for mark, n_seeds in marks.items():
        rows = [
            cells.get(
                f"{problem.device}-{name}-{mark}-{seed}",
                lambda m=mark, s=seed: _one(problem, points, m, s),
            )
            for seed in range(min(n_seeds, most_seeds or n_seeds))
        ]
        median = float(np.median([row["hypervolume"] for row in rows]))
        seconds = float(np.median([row["seconds"] for row in rows]))
        found |= {
            f"hypervolume_{mark}": round(median / unit, 5),
            f"seconds_{mark}": round(seconds, 2),
            f"n_seeds_{mark}": len(rows),
        }
    return found


def _one(problem: Problem, points: Points, n: int, seed: int) -> dict[str, Any]:
    begin = time.perf_counter()
    told = points(problem, n, seed)
    seconds = time.perf_counter() - begin
    value = hypervolume_2d(told, problem.reference)
    return {"hypervolume": value, "seconds": round(seconds, 3), "n": len(told)}


def _exact(problem: Problem) -> dict[str, Any]:
    begin = time.perf_counter()
    points = searched("exact")(problem, 10**9, 0)
    return {
        "hypervolume": hypervolume_2d(points, problem.reference),
        "seconds": round(time.perf_counter() - begin, 3),
        "n_predictions": len(points),
    }
