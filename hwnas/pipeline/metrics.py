"""Every price that a constraint may name, as `CostMetric`s by metric key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np

from hwnas.interfaces import CostMetric, FloatArray, LatencyEstimator
from hwnas.spaces.cost import AnalyticMetric, cost
from hwnas.spaces.space import Codes, SearchSpace

__all__ = ["cost_metrics"]


@dataclass(frozen=True)
class _Metric:
    name: str
    of: Callable[[Codes], FloatArray]

    def __call__(self, codes: Codes) -> FloatArray:
        return self.of(codes)


def cost_metrics(
    space: SearchSpace, estimators: Mapping[str, LatencyEstimator]
) -> dict[str, CostMetric]:
    """`macs`, `params`, ... of the space, and `latency_ms@device` of every estimator."""

    def analytic(metric: AnalyticMetric) -> Callable[[Codes], FloatArray]:
        return lambda codes: cost(space, codes, metric).astype(np.float64)

    found: list[_Metric] = [_Metric(name, analytic(name)) for name in get_args(AnalyticMetric)]
    for device, estimator in estimators.items():
        found.append(_Metric(f"latency_ms@{device}", estimator.latency_ms))
        found.append(_Metric(f"latency_p95_ms@{device}", estimator.latency_p95_ms))
    return {metric.name: metric for metric in found}
