"""Hypervolume of accuracy and latency on mobilenet_v3 at equal numbers of predictions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from search_parts.cells import Cells, Settings
from search_parts.ofa_finder import ofa_points
from search_parts.problem import Problem, load_problem

from hwnas.core.pareto import hypervolume_2d
from hwnas.interfaces import FloatArray
from hwnas.searchers import REGISTRY

__all__ = ["front"]

MARKS = (1000, 5000, 20000)
PREDICTORS = ("ridge", "distilled")

Points = Callable[[Problem, int, int], FloatArray]
"""Objectives of the archs that were forecast, in order, by problem, number and seed."""


def searched(name: str, **settings: Any) -> Points:
    """A registered searcher, 100 archs a generation."""

    def points(problem: Problem, n: int, seed: int) -> FloatArray:
        module = REGISTRY.load(name)
        searcher = module.build(module.Config(**settings), space=problem.space, seed=seed)
        told: list[FloatArray] = []
        while (missing := n - sum(map(len, told))) and len(
            codes := searcher.ask(min(100, missing))
        ):
            told.append(problem.objectives(codes))
            searcher.tell(codes, -told[-1][:, 0], told[-1])
        return np.concatenate(told)

    return points


CONTENDERS: dict[str, tuple[Points, int, int]] = {  # with the marks and seeds that it has time for
    "hwnas_evolution": (
        searched("evolution", survival="front", population=100, mutation=0.03, crossover=0.5),
        20000,
        10,
    ),
    "random": (searched("random"), 20000, 10),
    "pymoo_nsga2": (searched("pymoo", objective="front"), 20000, 10),
    "ofa_evolution_finder": (ofa_points, 5000, 10),
    "optuna_nsga2": (searched("optuna", objective="front", sampler="nsga2"), 5000, 10),
    "optuna_tpe": (searched("optuna", objective="front", sampler="tpe"), 1000, 10),
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
        for name, (points, most, n_seeds) in CONTENDERS.items():
            marks = [mark for mark in MARKS if mark <= most]
            n_seeds = min(n_seeds, settings.seeds or n_seeds)
            try:
                kept = [
                    cells.get(
                        f"{problem.device}-{predictor}-{name}-{mark}-{seed}",
                        lambda p=points, m=mark, s=seed: _one(problem, p, m, s),
                    )
                    for mark in marks
                    for seed in range(n_seeds)
                ]
            except (ImportError, LookupError) as error:
                skipped.append(f"{name}: {error}")
                continue
            rows[name] = {"n_seeds": n_seeds}
            for position, mark in enumerate(marks):
                part = kept[position * n_seeds : (position + 1) * n_seeds]
                median = float(np.median([row["hypervolume"] for row in part]))
                rows[name][f"hypervolume_{mark}"] = round(median / unit, 5)
                rows[name][f"seconds_{mark}"] = round(
                    float(np.median([row["seconds"] for row in part])), 2
                )
        found[predictor] = {"device": problem.device, "exact": exact, **rows, "skipped": skipped}
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
