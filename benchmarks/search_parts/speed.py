"""Archs per second through a whole search: propose, price, predict, reward, archive, save."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.controller.controller import run_search
from hwnas.controller.scorer import Predict
from hwnas.controller.sections import SearchConfig
from hwnas.interfaces import Constraint, FloatArray, SearcherContext
from hwnas.searchers import REGISTRY
from hwnas.spaces.index import enumerate_ops, op_sum
from hwnas.spaces.space import Codes
from search_parts.cells import Cells, Settings
from search_parts.ofa_finder import ofa_points
from search_parts.problem import Problem, load_problem

__all__ = ["speed"]

GENERATION = 8192
REPEATS = 3  # the fastest is reported: the others had company


def speed(cells: Cells, settings: Settings) -> dict[str, Any]:
    """Rates on this machine now, of the same problem for all; nothing is kept between runs."""
    problem = load_problem(settings, "distilled")
    linear, linear_cpu = _rate(problem, _linear(problem), 40 * GENERATION)
    gcn, gcn_cpu = _rate(problem, problem.predictor.predict, 8 * GENERATION)
    found: dict[str, Any] = {
        "archs_per_s_linear": linear,
        "archs_per_cpu_s_linear": linear_cpu,
        "archs_per_s_gcn": gcn,
        "archs_per_cpu_s_gcn": gcn_cpu,
        "searcher": "policy_gradient",
        "generation_size": GENERATION,
    }
    begin = time.perf_counter()
    _search(problem, problem.predictor.predict, SearchConfig().n_predictions, 128)
    found["default_search_s"] = round(time.perf_counter() - begin, 2)
    for name, run in (
        ("ofa_evolution_finder", lambda: len(ofa_points(problem, 1000, 0))),
        ("pymoo_nsga2", lambda: _foreign(problem, "pymoo", 2000)),
    ):
        try:
            begin = time.perf_counter()
            n = run()
            found[f"archs_per_s_{name}"] = round(n / (time.perf_counter() - begin))
        except (ImportError, LookupError) as error:
            found[f"archs_per_s_{name}"] = f"skipped: {error}"
    return found


def _linear(problem: Problem) -> Predict:
    """A score that is a sum over operators, as a linear predictor compiled into a table."""
    weights = np.random.default_rng(0).normal(size=len(enumerate_ops(problem.space)))

    def predict(codes: Codes) -> tuple[FloatArray, FloatArray]:
        return op_sum(problem.space, codes, weights), np.zeros(len(codes))

    return predict


def _rate(problem: Problem, predict: Predict, n: int) -> tuple[int, int]:
    """Archs per second of wall clock, and of processor time (one core; what others left of it)."""
    _search(problem, predict, GENERATION, GENERATION)  # tables are built once
    seconds = []
    for _ in range(REPEATS):
        begin, cpu = time.perf_counter(), time.process_time()
        _search(problem, predict, n, GENERATION)
        seconds.append((time.perf_counter() - begin, time.process_time() - cpu))
    return round(n / min(wall for wall, _ in seconds)), round(n / min(cpu for _, cpu in seconds))


def _search(problem: Problem, predict: Predict, n: int, generation: int) -> None:
    module = REGISTRY.load("policy_gradient")
    constraint = Constraint("latency_ms", problem.device, max_fraction_of_largest=0.6)
    with tempfile.TemporaryDirectory() as folder:
        run_search(
            problem.space,
            module.build(module.Config(), SearcherContext(problem.space, 0)),
            predict=predict,
            metrics={f"latency_ms@{problem.device}": problem.latency_ms},
            config=SearchConfig(
                constraints=(constraint,), n_predictions=n, generation_size=generation
            ),
            seed=0,
            folder=Path(folder),
        )


def _foreign(problem: Problem, name: str, n: int) -> int:
    module = REGISTRY.load(name)
    searcher = module.build(module.Config(objective="front"), SearcherContext(problem.space, 0))
    done = 0
    while done < n:
        codes = searcher.ask(100)
        points = problem.objectives(codes)
        searcher.tell(codes, -points[:, 0], points)
        done += len(codes)
    return done
