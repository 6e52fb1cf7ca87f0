"""Leaves every column out in turn, with all batch sizes of its machine."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwnas.core.rng import rng
from hwnas.core.stats import spearman
from hwnas.interfaces import FloatArray
from hwnas.latency.smoothing import smooth_additively
from hwnas.measure.published.networks import group_of
from transfer_parts.estimating import Columns, best_source

__all__ = ["leave_out"]

SCORES = ("spearman", "raw_sources", "best_source", "coverage", "median_error", "within_10")


def leave_out(columns: Columns, n: int, pool: int, seeds: int) -> dict[str, Any]:
    """Scores per column over the networks that were not timed, their means, and the worst column.

    `ceiling`: an additive model fitted to four fifths of the networks, on the other fifth.
    """
    rows = []
    for column in columns.data.columns:
        known = tuple(c for c in columns.data.columns if group_of(c) != group_of(column))
        row = _left_out(columns, known, column, n, pool, seeds)
        ceiling = _ceiling(columns, columns.data.column(column))
        rows.append({"column": column, **row, "ceiling": ceiling})
    worst = min(rows, key=lambda row: row["spearman"])
    return {
        "n": n,
        "seeds": seeds,
        "mean": {key: float(np.mean([row[key] for row in rows])) for key in (*SCORES, "ceiling")},
        "worst": {"column": worst["column"], "spearman": worst["spearman"]},
        "below_95_percent_of_ceiling": [
            row["column"] for row in rows if row["spearman"] < 0.95 * row["ceiling"]
        ],
        "columns": rows,
    }


def _left_out(
    columns: Columns, known: tuple[str, ...], column: str, n: int, pool: int, seeds: int
) -> dict[str, float]:
    truth = columns.data.column(column)
    raw, smooth = (columns.sources(known, None, smooth=smooth) for smooth in (False, True))
    prior, raw_prior = columns.prior(known, smooth), columns.prior(known, raw)
    scores: list[tuple[float, ...]] = []
    for seed in range(seeds):
        found = columns.estimate(prior, column, n, seed, pool=pool)
        unseen = np.setdiff1d(np.arange(len(truth)), found.timed)
        low, high = found.forecast.interval_ms()[unseen].T
        guess, true = found.forecast.latency_ms[unseen], truth[unseen]
        from_raw = columns.estimate(raw_prior, column, n, seed, pool=pool)
        nearest = best_source(raw, found.timed, truth[found.timed])
        errors = np.abs(guess / true - 1)
        scores.append(
            (
                spearman(guess, true),
                spearman(from_raw.forecast.latency_ms[unseen], true),
                spearman(nearest[unseen], true),
                float(((low <= true) & (true <= high)).mean()),
                float(np.median(errors)),
                float((errors <= 0.1).mean()),
            )
        )
    return dict(zip(SCORES, np.mean(scores, axis=0).tolist(), strict=True))


def _ceiling(columns: Columns, truth: FloatArray) -> float:
    order = rng(0, "transfer/ceiling").permutation(len(truth))
    fit, test = order[len(order) // 5 :], order[: len(order) // 5]
    smooth = smooth_additively(columns.choices, truth[:, None], fit)[:, 0]
    return spearman(smooth[test], truth[test])
