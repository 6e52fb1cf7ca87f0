"""The latencies that a space reaches on a device, so that a limit can be chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hwnas.interfaces import CostMetric
from hwnas.spaces.space import SearchSpace

if TYPE_CHECKING:
    from hwnas.latency.estimator import TableEstimator

__all__ = ["latency_spread", "spread_by_table"]

N_ARCHS = 4096
QUARTILES = {"a quarter is below": 0.25, "half is below": 0.5, "three quarters are below": 0.75}


def latency_spread(latency_ms: CostMetric, space: SearchSpace) -> dict[str, float]:
    """Latencies in ms of the fastest and the slowest arch, and the quartiles over random archs.

    They come from `N_ARCHS` seeded archs. The fastest and the slowest can also be the smallest and
    the largest arch of the space.
    """
    random = latency_ms(space.sample(N_ARCHS, seed=0))
    both = latency_ms(space.codes([space.smallest(), space.largest()]))
    found = {"smallest": float(min(random.min(), both.min()))}
    found |= {name: float(np.quantile(random, share)) for name, share in QUARTILES.items()}
    return {**found, "largest": float(max(random.max(), both.max()))}


def spread_by_table(estimator: TableEstimator) -> dict[str, object]:
    """`latency_spread` of the estimates of a table, with the device and the numbers of classes."""
    found = estimator.space
    return {
        "device": estimator.device.name,
        "classes": found.macro.num_classes,
        "classes timed": list(estimator.classes_timed) or [found.macro.num_classes],
        "unit": "ms",
        **latency_spread(estimator.latency_ms, found),
    }
