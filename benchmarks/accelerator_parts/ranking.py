"""How well one column of numbers ranks networks by another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from accelerator_parts.reading import paired
from hwnas.core.rng import rng
from hwnas.core.stats import bootstrap_interval, kendall_tau
from hwnas.interfaces import FloatArray

FEW = 200  # networks, for which many resamples cost little


def tau_row(
    question: str, by: str, on: str, first: Mapping[str, float], second: Mapping[str, float]
) -> dict[str, Any]:
    """Kendall's tau-b with a 95 % bootstrap interval over networks."""
    return tau_of(question, by, on, *paired(first, second))


def tau_of(
    question: str, by: str, on: str, first: FloatArray, second: FloatArray
) -> dict[str, Any]:
    """The same for arrays."""
    random = rng(0, "benchmarks/accelerators", question, by, on)
    n = len(first)
    n_resamples = 1000 if n <= FEW else 200
    low, high = bootstrap_interval(
        kendall_tau, first, second, rng=random, level=0.95, n_resamples=n_resamples
    )
    tau = kendall_tau(first, second)
    return {
        "question": question,
        "ranked by": by,
        "on": on,
        "n": n,
        "tau": round(tau, 3),
        "95 %": f"{low:.3f} to {high:.3f}",
    }


def swaps(first: FloatArray, second: FloatArray, ratio: float) -> tuple[float, int]:
    """Share of pairs at least `ratio` apart in both columns that are in opposite order; pairs."""
    a, b = (np.subtract.outer(np.log(side), np.log(side)) for side in (first, second))
    clear = np.triu((np.abs(a) >= np.log(ratio)) & (np.abs(b) >= np.log(ratio)), 1)
    n = int(clear.sum())
    return float((np.sign(a) != np.sign(b))[clear].mean()) if n else 0.0, n
