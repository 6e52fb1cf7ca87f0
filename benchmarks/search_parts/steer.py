"""Whether the policy's latency follows the limit, and every winner keeps it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.interfaces import Constraint
from hwnas.search.config import SearchConfig
from hwnas.search.controller import run_search
from hwnas.searchers import policy_gradient
from search_parts.cells import Cells, Settings
from search_parts.problem import Problem, load_problem

__all__ = ["steer"]

FRACTIONS = (0.8, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4)  # of the largest arch's latency


def steer(cells: Cells, settings: Settings) -> dict[str, Any]:
    """Median over seeds of mode and winner latency at every limit, as shares of the limit."""
    problem, n_seeds = load_problem(settings, "ridge"), settings.seeds or 5
    rows = []
    for fraction in FRACTIONS:
        found = [
            cells.get(
                f"{problem.device}-{fraction}-{seed}",
                lambda f=fraction, s=seed: _one(problem, f, s),
            )
            for seed in range(n_seeds)
        ]
        mode, winner = (
            float(np.median([row[key] / row["limit_ms"] for row in found]))
            for key in ("mode_ms", "winner_ms")
        )
        rows.append(
            {
                "limit_fraction": fraction,
                "limit_ms": round(found[0]["limit_ms"], 4),
                "mode_of_limit": round(mode, 4),
                "winner_of_limit": round(winner, 4),
                "all_winners_meet_it": all(row["winner_ms"] <= row["limit_ms"] for row in found),
            }
        )
    return {
        "device": problem.device,
        "n_seeds": n_seeds,
        "rows": rows,
        "largest_mode_gap": max(abs(1 - row["mode_of_limit"]) for row in rows),
    }


def _one(problem: Problem, fraction: float, seed: int) -> dict[str, float]:
    key = f"latency_ms@{problem.device}"
    with tempfile.TemporaryDirectory() as folder:
        result = run_search(
            problem.space,
            policy_gradient.build(policy_gradient.Config(), space=problem.space, seed=seed),
            predict=problem.predictor.predict,
            metrics={key: problem.latency_ms},
            config=SearchConfig(
                constraints=(
                    Constraint("latency_ms", problem.device, max_fraction_of_largest=fraction),
                ),
                n_predictions=102_400,
                generation_size=256,
            ),
            seed=seed,
            folder=Path(folder),
        )
    assert result.mode is not None
    return {
        "limit_ms": result.limits[key],
        "mode_ms": result.mode.costs[key],
        "winner_ms": result.winner.costs[key],
    }
