"""The costs that constraints can name, as `CostMetric`s by metric key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import numpy as np

from hwnas.controller.constraints import metric_key, reach, resolve
from hwnas.core.metrics import MetricKey
from hwnas.interfaces import CostMetric, LatencyEstimator
from hwnas.latency.estimator import TableEstimator
from hwnas.pipeline.foreign_tables import is_profiled
from hwnas.pipeline.project import Project
from hwnas.pipeline.winners import constraints_for, targets
from hwnas.spaces.cost import AnalyticMetric, cost
from hwnas.spaces.space import SearchSpace

__all__ = ["cost_metrics", "known_metrics", "prices", "require_reachable"]


def cost_metrics(
    space: SearchSpace, estimators: Mapping[str, LatencyEstimator]
) -> dict[str, CostMetric]:
    """`macs`, `params`, ... of the space, and `latency_ms@device` of every estimator.

    `energy_mj@device` where its table has energies.
    """

    def analytic(metric: AnalyticMetric) -> CostMetric:
        return lambda codes: cost(space, codes, metric).astype(np.float64)

    metrics: dict[str, CostMetric] = {name: analytic(name) for name in get_args(AnalyticMetric)}
    for device, estimator in estimators.items():
        metrics[MetricKey("latency_ms", device)] = estimator.latency_ms
        metrics[MetricKey("latency_p95_ms", device)] = estimator.latency_p95_ms
        if isinstance(estimator, TableEstimator) and estimator.table.has_energy:
            metrics[MetricKey("energy_mj", device)] = estimator.energy_mj
    return metrics


def prices(project: Project) -> dict[str, CostMetric]:
    """All metrics with which the project can price archs, by metric key; includes all tables."""
    profiled = [name for name in project.devices if project.files.table(name).exists()]
    return cost_metrics(project.space, {name: project.estimator(name) for name in profiled})


def known_metrics(project: Project) -> dict[str, CostMetric]:
    """Metrics that are known before any device is profiled, by metric key."""
    estimators = {
        name: project.estimator(name) for name in project.devices if is_profiled(project, name)
    }
    return cost_metrics(project.space, estimators)


def require_reachable(project: Project) -> None:
    """Refuses constraints that no arch meets, as far as existing valid tables show.

    Raises:
        UserError: names the nearest feasible arch and its costs.
    """
    metrics = known_metrics(project)
    for device in targets(project):
        priced = [
            limit for limit in constraints_for(project, device) if metric_key(limit) in metrics
        ]
        limits = resolve(priced, metrics, project.space)
        reach(project.space, metrics, limits, seed=project.config.seed)
