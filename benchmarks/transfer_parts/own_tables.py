"""Transfer between runtimes and precisions of this machine, on the networks of its own tables.

`benchmarks/litert_tables.py --work FOLDER` measures the tables, all with the same networks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.core.stats import spearman
from hwnas.interfaces import FloatArray
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.table import LatencyTable
from hwnas.latency.transfer import (
    DevicePrior,
    choose_networks,
    device_prior,
    fit_device,
    operator_similarity,
)
from hwnas.spaces.cost import cost
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.running import live_counts
from hwnas.spaces.space import SearchSpace
from transfer_parts.estimating import best_source

__all__ = ["across_own_tables"]

TASKS = {
    "runtime: ONNX Runtime to LiteRT": (["local"], "local_litert"),
    "runtime: LiteRT to ONNX Runtime": (["local_litert"], "local"),
    "precision: LiteRT float to int8": (["local_litert"], "local_litert_int8"),
    "both: ONNX Runtime and LiteRT to LiteRT int8": (
        ["local", "local_litert"],
        "local_litert_int8",
    ),
}
"""Known tables, and the table that is estimated."""


def across_own_tables(
    folder: Path, space: SearchSpace, n_timed: list[int], seeds: int
) -> list[dict[str, Any]]:
    """Rank correlation, median error and share within 10 % on the networks that were not timed.

    A seed chooses the half of the networks from which the timed ones come. `ours`: as `hwnas table
    transfer` estimates. `source`: estimates of the known table that ranks the timed networks best,
    scaled to them. `macs`: a line on MACs. `full`: estimates of the whole measured table, by
    corrections that have not seen the network, on all networks.

    Raises:
        UserError: a table is missing, or has other networks.
    """
    rows = []
    for task, (sources, target) in TASKS.items():
        known = [_table(folder, name) for name in sources]
        nets = _table(folder, target).corrections[space.id].validation.nets
        codes = np.array([net.codes for net in nets])
        truth = np.array([net.measured_ms for net in nets])
        counts, ops = live_counts(space, codes), enumerate_ops(space)
        estimators = [TableEstimator(table, space) for table in known]
        per_row = np.stack([one.row_ms for one in estimators], axis=1)
        similar = operator_similarity(ops)
        prior = device_prior(counts, counts @ per_row, sources, similar, known_rows=per_row)
        estimates = np.stack([one.latency_ms(codes) for one in estimators], axis=1)
        macs = cost(space, codes, "macs").astype(float)
        found: dict[str, Any] = {"task": task, "n_networks": len(nets)}
        for n in n_timed:
            found |= _scores(prior, estimates, truth, macs, n, seeds)
        full = _quality(np.array([net.forecast_ms for net in nets]), truth)
        rows.append(found | {f"full_{key}": value for key, value in full.items()})
    return rows


def _table(folder: Path, name: str) -> LatencyTable:
    path = folder / f"{name}.json"
    if not path.is_file():
        raise UserError(
            "a table of a task is missing",
            expected=str(path),
            fix=f"python benchmarks/litert_tables.py --work {folder}",
        )
    return LatencyTable.load(path)


def _quality(guess: FloatArray, truth: FloatArray) -> dict[str, float]:
    error = np.abs(guess / truth - 1)
    return {
        "spearman": spearman(guess, truth),
        "error": float(np.median(error)),
        "within_10": float((error <= 0.1).mean()),
    }


def _scores(
    prior: DevicePrior,
    known: FloatArray,
    truth: FloatArray,
    macs: FloatArray,
    n: int,
    seeds: int,
) -> dict[str, float]:
    """Means over seeds."""
    scores: dict[str, list[dict[str, float]]] = {}
    for seed in range(seeds):
        pool = rng(seed, "transfer/own").choice(len(truth), len(truth) // 2, replace=False)
        timed = choose_networks(prior, n, pool)
        rest = np.setdiff1d(np.arange(len(truth)), timed)
        nearest = best_source(known, timed, truth[timed])
        guesses = {
            "ours": fit_device(prior, timed, truth[timed]).latency_ms,
            "source": nearest * np.median(truth[timed] / nearest[timed]),
            "macs": np.polyval(np.polyfit(macs[timed], truth[timed], 1), macs),
        }
        for name, guess in guesses.items():
            scores.setdefault(name, []).append(_quality(guess[rest], truth[rest]))
    return {
        f"{name}_{what}_{n}": float(np.mean([row[what] for row in rows]))
        for name, rows in scores.items()
        for what in rows[0]
    }
