"""The magnitude of logits, relative to which differences between logits are stated."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["logit_scale", "relative"]

MASK = 1e3
STEADY = 0.01


def logit_scale(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """The largest magnitude of logits [n, classes, ...], by class: [1, classes, ...].

    Networks can mask a class by a constant such as -1e9; all differences vanish beside it. So a
    class whose logits exceed `MASK` and vary by at most `STEADY` of their magnitude has a scale of
    its own, and does not count for the others; unless this is true of all classes.
    """
    axes = (0, *range(2, logits.ndim))
    low, high = (np.float64(f(logits, axis=axes, keepdims=True)) for f in (np.min, np.max))
    own = np.maximum(np.abs(low), np.abs(high))
    is_mask = (own > MASK) & (high - low <= STEADY * own)
    common = own[~is_mask].max() if not is_mask.all() else own.max()
    found: NDArray[np.float64] = np.where(is_mask & ~is_mask.all(), own, common)
    return found


def relative(difference: NDArray[Any], logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Differences [n, classes, ...] of logits / their `logit_scale`; of logits of zero, 1 or 0."""
    scale = np.broadcast_to(logit_scale(logits), difference.shape)
    without = (difference > 0).astype(np.float64)
    found: NDArray[np.float64] = np.divide(difference, scale, out=without, where=scale > 0)
    return found
