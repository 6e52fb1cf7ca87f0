"""Proxies that return an analytic cost; larger networks score higher."""

from __future__ import annotations

import numpy as np

from hwnas.interfaces import Proxy
from hwnas.spaces.cost import AnalyticMetric, cost
from hwnas.spaces.space import SearchSpace

__all__ = ["cost_proxy"]


def cost_proxy(space: SearchSpace, metric: AnalyticMetric) -> Proxy:
    """A proxy that returns the cost of archs, float64 [n]."""
    return lambda codes: cost(space, codes, metric).astype(np.float64)
