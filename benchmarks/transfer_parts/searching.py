"""Searches NAS-Bench-201 on CIFAR-100 under a latency limit that few timings must judge."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.core.errors import UserError
from hwnas.interfaces import FloatArray
from hwnas.measure.published.networks import group_of
from hwnas.spaces.cost import cost
from transfer_parts.estimating import Columns, best_source

__all__ = ["read_accuracy", "search_under_limits"]

TARGETS = ("pixel3", "titanx_256")
QUANTILES = (0.1, 0.25, 0.5, 0.75)
"""Limits, as quantiles of the true latencies of all networks with a known accuracy."""


def read_accuracy(folder: Path) -> tuple[np.ndarray, FloatArray]:
    """Positions [m] of networks in the latency data, and their CIFAR-100 test top-1 [m] in %."""
    path = folder / "accuracy.csv"
    if not path.is_file():
        raise UserError("file not found", where=path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    index = np.array([int(row["index"]) for row in rows])
    return index, np.array([float(row["cifar100_test_200ep"]) for row in rows])


def search_under_limits(
    columns: Columns, index: np.ndarray, accuracy: FloatArray, n_timed: list[int], seeds: int
) -> list[dict[str, Any]]:
    """Per device and limit: accuracy and true latency of the winner, by source of the latencies.

    The space is small enough to search exhaustively: the winner has the highest accuracy of all
    networks whose latency, as known to the search, is within the limit. `ms_over_limit` above 1
    breaks the limit. `winners`: seeds in which some network was within it. The most similar
    device's column and MACs are scaled to the timed networks.
    """
    rows = []
    for target in TARGETS:
        known = tuple(c for c in columns.data.columns if group_of(c) != group_of(target))
        raw = columns.sources(known, None, smooth=False)
        prior = columns.prior(known, columns.sources(known, None, smooth=True))
        truth = columns.data.column(target)
        macs = cost(columns.data.space, columns.data.live_codes, "macs") / 1e6
        seen: list[tuple[str, FloatArray]] = [("true latencies", truth)]
        for n in n_timed:
            for seed in range(seeds):
                found = columns.estimate(prior, target, n, seed)
                at = found.timed
                nearest = best_source(raw, at, truth[at])
                line = np.polyval(np.polyfit(macs[at], truth[at], 1), macs)
                seen.append((f"{n} timings", found.forecast.latency_ms))
                seen.append((f"{n} timings, upper end", found.forecast.interval_ms()[:, 1]))
                scaled = nearest * np.median(truth[at] / nearest[at])
                seen.append((f"most similar device, scaled to {n}", scaled))
                seen.append((f"MACs, line through {n}", line))
        for quantile in QUANTILES:
            limit = float(np.quantile(truth[index], quantile))
            rows += _winners(target, quantile, limit, seen, truth[index], index, accuracy)
    return rows


def _winners(
    target: str,
    quantile: float,
    limit: float,
    seen: list[tuple[str, FloatArray]],
    truth: FloatArray,
    index: np.ndarray,
    accuracy: FloatArray,
) -> list[dict[str, Any]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for name, latency in seen:
        winners = found.setdefault(name, [])
        allowed = latency[index] <= limit
        if allowed.any():
            best = int(np.where(allowed, accuracy, -1.0).argmax())
            winners.append((accuracy[best], truth[best] / limit))
    rows = []
    for name, winners in found.items():
        row = {"device": target, "limit": f"{quantile:.0%} quantile, {limit:.4g} ms"}
        row |= {"latencies": name, "winners": len(winners)}
        if winners:
            top1, ratio = np.array(winners).T
            row |= {"top1": float(top1.mean()), "ms_over_limit": float(ratio.mean())}
            row |= {"worst_ms_over_limit": float(ratio.max())}
            row |= {"limit_kept": float((ratio <= 1).mean())}
        rows.append(row)
    return rows
