"""The latencies that a space reaches on a device, so that a limit can be chosen."""

from __future__ import annotations

import numpy as np

from hwnas.interfaces import CostMetric
from hwnas.spaces.space import SearchSpace

__all__ = ["latency_spread"]

N_ARCHS = 4096
QUARTILES = {"a quarter is below": 0.25, "half is below": 0.5, "three quarters are below": 0.75}


def latency_spread(latency_ms: CostMetric, space: SearchSpace) -> dict[str, float]:
    """Milliseconds of the fastest and the slowest arch, and the quartiles of uniform ones.

    Of `N_ARCHS` seeded archs, and for the ends also of the smallest and the largest of the space.
    """
    random = latency_ms(space.sample(N_ARCHS, seed=0))
    both = latency_ms(space.codes([space.smallest(), space.largest()]))
    found = {"smallest": float(min(random.min(), both.min()))}
    found |= {name: float(np.quantile(random, share)) for name, share in QUARTILES.items()}
    return {**found, "largest": float(max(random.max(), both.max()))}
