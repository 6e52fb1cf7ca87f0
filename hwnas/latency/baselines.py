"""Latency estimates without a table: the baselines for a table."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwnas.core.rng import stable_seed
from hwnas.interfaces import FloatArray

__all__ = ["forest_on_counts"]

N_TREES = 50
SHARE_OF_COUNTS = 1 / 3  # features per split: the default of regression forests (Breiman 2001)


def forest_on_counts(
    counts: FloatArray, measured_ms: FloatArray, fold: NDArray[np.int64]
) -> FloatArray:
    """Estimates latencies in ms, [n], from operator counts [n, p] with random forests.

    The forest that estimates a network is fitted on the networks of all other folds. It learns
    logarithms, so that small and large networks have equal weight.

    fold: number of the fold of each network, [n].
    """
    from sklearn.ensemble import RandomForestRegressor

    estimates = np.empty(len(measured_ms))
    for number in np.unique(fold):
        inside = fold == number
        forest = RandomForestRegressor(
            N_TREES,
            max_features=SHARE_OF_COUNTS,
            random_state=stable_seed(0, "latency/forest") % 2**32,
        )
        forest.fit(counts[~inside], np.log(measured_ms[~inside]))
        estimates[inside] = np.exp(forest.predict(counts[inside]))
    return estimates
