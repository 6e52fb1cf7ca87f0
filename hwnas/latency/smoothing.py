"""Estimates the latencies of whole networks by an additive model of their choices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.core.stats import require_positive
from hwnas.interfaces import FloatArray

__all__ = ["additive_rows", "smooth_additively"]

RIDGE = 1e-3  # weight of the penalty; only affects choices that no network distinguishes
MIN_SHARE = 0.01  # share of a device's median; an additive model may extrapolate below 0


def smooth_additively(
    choices: FloatArray, known_ms: FloatArray, timed: NDArray[np.int64] | None = None
) -> FloatArray:
    """Estimates of the latencies of n networks on d devices in ms, [n, d].

    The estimate of a network is a constant plus one summand (price) for the value of each choice;
    constant and prices of a device are fitted on its latencies by least squares.

    `hwnas.latency.transfer` makes its prior from the latencies of known devices. Noise in these
    latencies, and effects that depend on several choices of one device, mislead the prior. The
    estimates of this function have neither. With them, the mean rank correlation on new devices is
    higher (docs/results.md).

    choices: [n, c], the values of the choices of each network, one-hot.
    known_ms: latencies in ms, [n, d], positive.
    timed: [m], indices of the networks whose latencies are used; default: all.

    Raises:
        UserError: fewer than two networks, or a latency that is not positive and finite.
    """
    timed = np.arange(len(choices)) if timed is None else timed
    x, y = choices[timed], known_ms[timed]
    if len(timed) < 2:
        raise UserError(
            "too few timed networks to smooth their latencies",
            expected="at least 2 timed networks",
            found=f"{len(timed)} timed networks",
        )
    require_positive(y, "latencies of known devices must be positive and finite")
    centre, mean = x.mean(axis=0), y.mean(axis=0)
    x = x - centre
    prices = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ (y - mean))
    smooth: FloatArray = mean + (choices - centre) @ prices
    return np.maximum(smooth, MIN_SHARE * np.median(y, axis=0))


def additive_rows(counts: FloatArray, known_ms: FloatArray) -> FloatArray:
    """Prices [p, d] of operators whose sums are closest to `known_ms` [n, d].

    The result is exact if latencies are sums of rows, except for operators that the counts cannot
    separate. For these, the ridge term selects the smallest prices.
    """
    gram = counts.T @ counts
    ridge = 1e-6 * float(np.trace(gram)) / len(gram)
    solved: FloatArray = np.linalg.solve(gram + ridge * np.eye(len(gram)), counts.T @ known_ms)
    return solved
