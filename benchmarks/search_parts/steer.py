"""Whether the policy's latency follows the limit, and every winner keeps it."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.controller.controller import run_search
from hwnas.controller.sections import SearchConfig
from hwnas.devices.spec import load_device, load_transport
from hwnas.interfaces import Constraint, SearcherContext
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.sections import ProfileConfig
from hwnas.latency.table import LatencyTable
from hwnas.measure.profile import time_networks
from hwnas.searchers import policy_gradient
from search_parts.cells import Cells, Settings
from search_parts.problem import Problem, load_problem

__all__ = ["steer"]

N_ANCHORS, RETIMING_S = 6, 90.0
BINDS = 0.99  # of the limit: a winner that is faster was not held back by it
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
    binding = [row for row in rows if row["winner_of_limit"] > BINDS]
    summary = {
        "device": problem.device,
        "n_seeds": n_seeds,
        "rows": rows,
        "largest_mode_gap_where_the_limit_binds": max(
            abs(1 - row["mode_of_limit"]) for row in binding
        ),
    }
    if settings.retime is not None and settings.table is not None:
        winners = [
            cells.get(f"{problem.device}-{fraction}-0", dict)["winner"] for fraction in FRACTIONS
        ]
        limits = [row["limit_ms"] for row in rows]
        summary["retimed"] = _retimed(problem, winners, limits, settings.table, settings.retime)
    return summary


def _retimed(
    problem: Problem, winners: list[list[int]], limits: list[float], table: Path, folder: Path
) -> dict[str, Any]:
    """Winners timed as whole networks on this machine, at the speed the table was measured at.

    Networks of the table take turns with them and say how much slower the machine is now.
    """
    space = replace(problem.space, allowed=())
    estimator = TableEstimator(LatencyTable.load(table), space)
    nets = sorted(estimator.correction.validation.nets, key=lambda net: net.measured_ms)
    anchors = [nets[i] for i in np.linspace(0, len(nets) - 1, N_ANCHORS).round().astype(int)]
    codes = np.array([*winners, *(anchor.codes for anchor in anchors)], dtype=np.int16)
    config = ProfileConfig().model_copy(update={"rounds": 2000, "time_budget_s": RETIMING_S})
    device = replace(load_device("local"), precision=estimator.device.precision)
    found = time_networks(space, codes, device, folder, config, transport=load_transport("local"))
    now = np.array([timing.median_ms for timing in found.timings])
    then = np.array([anchor.measured_ms for anchor in anchors])
    drift = float(np.median(now[len(winners) :] / then))
    measured = now[: len(winners)] / drift
    low, high = estimator.interval_ms(codes[: len(winners)]).T
    return {
        "measured_ms": measured.round(4).tolist(),
        "interval_ms": np.stack([low, high], axis=1).round(4).tolist(),
        "measured_of_limit": (measured / limits).round(4).tolist(),
        "share_within_interval": float(((measured >= low) & (measured <= high)).mean()),
        "interval_coverage": 0.9,
        "machine_now_over_then": round(drift, 4),
        "drift_of_anchors": (now[len(winners) :] / then / drift).round(4).tolist(),
    }


def _one(problem: Problem, fraction: float, seed: int) -> dict[str, Any]:
    key = f"latency_ms@{problem.device}"
    with tempfile.TemporaryDirectory() as folder:
        result = run_search(
            problem.space,
            policy_gradient.build(policy_gradient.Config(), SearcherContext(problem.space, seed)),
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
        "winner": list(result.winner.arch.codes),
    }
