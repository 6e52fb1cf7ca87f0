"""Replaces latencies of whole networks, timed or not, by the estimates of an additive model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwnas.core.errors import UserError
from hwnas.interfaces import FloatArray

__all__ = ["smooth_additively"]

RIDGE = 1e-3  # weight of the penalty; only affects choices that no network distinguishes
MIN_SHARE = 0.01  # share of a device's median; an additive model may extrapolate below 0


def smooth_additively(
    choices: FloatArray, known_ms: FloatArray, timed: NDArray[np.int64] | None = None
) -> FloatArray:
    """Latencies [n, d] of n networks on d devices, each the sum of a constant and choice prices.

    A known device is a source of the prior of `hwnas.latency.transfer`. Its noise, and interactions
    that other devices lack, mislead the prior. The prices of its choices do not. Sources smoothed
    in this way raise the mean rank correlation of the estimates (docs/results.md).

    choices: [n, c], one-hot. known_ms: [n, d], positive. timed: [m] positions of the networks whose
    latencies are used [all]; the others are estimated from these alone.

    Raises:
        UserError: fewer than two networks, or a latency that is not positive and finite.
    """
    timed = np.arange(len(choices)) if timed is None else timed
    x, y = choices[timed], known_ms[timed]
    if len(timed) < 2:
        raise UserError("too few networks to smooth", expected="two or more", found=len(timed))
    if not (np.isfinite(y).all() and (y > 0).all()):
        raise UserError("latencies of known devices must be positive and finite")
    centre, mean = x.mean(axis=0), y.mean(axis=0)
    x = x - centre
    prices = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ (y - mean))
    smooth: FloatArray = mean + (choices - centre) @ prices
    return np.maximum(smooth, MIN_SHARE * np.median(y, axis=0))
