"""Leave-one-device-out: how well ten timings of a new device carry over from known devices.

    python benchmarks/latency_transfer.py --data $DATA/latency_fbnet --n 10 --seeds 5

Every column is held out in turn, with all batch sizes of its machine. Per seed, the networks to
time are chosen from a random pool by the prior over the other machines alone; scores are over all
networks that were not timed. `baseline`: the best single other column by rank agreement on the same
timings. `ceiling`: an additive model fitted on four fifths of the networks, on the other fifth;
its shortfall is noise and interaction. `coverage`: of the 90 % intervals. HELP (2106.08630,
table 1) publishes a mean of 0.932 on unseen devices of NAS-Bench-201.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.core.rng import rng
from hwnas.core.stats import spearman
from hwnas.interfaces import FloatArray
from hwnas.latency.transfer import choose_networks, device_prior, fit_device, operator_similarity
from hwnas.measure.published.networks import Measurements, group_of, read_measurements
from hwnas.spaces.index import enumerate_ops, op_counts

HELP_MEAN = 0.932


def main() -> None:
    """Print one row per column, and their mean and worst."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with latency.npz")
    parser.add_argument("--n", type=int, default=10, help="networks timed on the new device")
    parser.add_argument("--pool", type=int, default=600, help="candidates to choose them from")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--format", choices=("table", "json"), default="table")
    args = parser.parse_args()
    begin = time.perf_counter()
    data = read_measurements(args.data)
    counts = op_counts(data.space, data.live_codes)
    related = operator_similarity(enumerate_ops(data.space))
    rows = [
        _hold_out(data, counts, related, column, args.n, args.pool, args.seeds)
        for column in data.columns
    ]
    mean = {
        key: float(np.mean([row[key] for row in rows]))
        for key in ("spearman", "baseline", "ceiling", "of_ceiling", "coverage", "median_error")
    }
    worst = min(rows, key=lambda row: row["spearman"])
    summary = {
        "data": args.data.name,
        "n": args.n,
        "seeds": args.seeds,
        "mean": mean,
        "worst": {"column": worst["column"], "spearman": worst["spearman"]},
        "columns_below_95_percent_of_ceiling": [
            row["column"] for row in rows if row["of_ceiling"] < 0.95
        ],
        "help_published_mean_nasbench201": HELP_MEAN,
        "seconds": time.perf_counter() - begin,
    }
    if args.format == "json":
        json.dump({**summary, "columns": rows}, sys.stdout, indent=1)
        print()
        return
    for row in (*rows, {"column": "mean", **mean}):
        print(
            "  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{v:16}" for k, v in row.items())
        )
    print(f"worst: {worst['column']} {worst['spearman']:.3f}; HELP on NAS-Bench-201: {HELP_MEAN}")


def _hold_out(
    data: Measurements,
    counts: FloatArray,
    related: FloatArray,
    column: str,
    n: int,
    pool_size: int,
    seeds: int,
) -> dict[str, Any]:
    known = [c for c in data.columns if group_of(c) != group_of(column)]
    known_ms = np.stack([data.column(c) for c in known], axis=1)
    prior = device_prior(counts, known_ms, [group_of(c) for c in known], related)
    truth = data.column(column)
    scores: list[tuple[float, ...]] = []
    for seed in range(seeds):
        pool = rng(seed, "transfer/pool", column).choice(len(truth), pool_size, replace=False)
        timed = choose_networks(prior, n, pool)
        forecast = fit_device(prior, timed, truth[timed])
        unseen = np.setdiff1d(np.arange(len(truth)), timed)
        low, high = forecast.interval_ms()[unseen].T
        agreement = [spearman(ms[timed], truth[timed]) for ms in known_ms.T]
        best = known_ms[:, int(np.argmax(agreement))]
        guess = forecast.latency_ms[unseen]
        scores.append(
            (
                spearman(guess, truth[unseen]),
                spearman(best[unseen], truth[unseen]),
                float(((low <= truth[unseen]) & (truth[unseen] <= high)).mean()),
                float(np.median(np.abs(guess / truth[unseen] - 1))),
            )
        )
    score, baseline, coverage, error = np.mean(scores, axis=0).tolist()
    ceiling = _ceiling(data, truth)
    return {
        "column": column,
        "spearman": score,
        "baseline": baseline,
        "ceiling": ceiling,
        "of_ceiling": score / ceiling,
        "coverage": coverage,
        "median_error": error,
    }


def _ceiling(data: Measurements, truth: FloatArray) -> float:
    """Spearman of a ridge over one-hot choices on a fifth of the networks, fitted on the others."""
    choices = data.space.encode(data.codes).astype(np.float64)
    choices = choices[:, choices.std(axis=0) > 0]
    order = rng(0, "transfer/ceiling").permutation(len(truth))
    fit, test = order[len(order) // 5 :], order[: len(order) // 5]
    centre = choices[fit].mean(axis=0)
    x, y = choices[fit] - centre, truth[fit] - truth[fit].mean()
    weights = np.linalg.solve(x.T @ x + 1e-3 * np.eye(x.shape[1]), x.T @ y)
    return spearman((choices[test] - centre) @ weights, truth[test])


if __name__ == "__main__":
    main()
