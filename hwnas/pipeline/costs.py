"""Functions that compute costs of archs, for every metric key that constraints can name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import get_args

import numpy as np

from hwnas.controller.constraints import CostColumn, metric_key, reach, resolve
from hwnas.core.metrics import MetricKey
from hwnas.interfaces import Constraint, CostMetric, FloatArray, LatencyEstimator
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.spread import latency_spread
from hwnas.latency.together import LatenciesTogether
from hwnas.pipeline.foreign_tables import is_profiled, known_table, table_file
from hwnas.pipeline.project import Project
from hwnas.pipeline.winners import constraints_for, targets
from hwnas.spaces.cost import AnalyticMetric, cost
from hwnas.spaces.space import Codes, SearchSpace

__all__ = [
    "cost_metrics",
    "known_metrics",
    "latency_spreads",
    "prices",
    "require_reachable",
    "with_chances",
]


Corrected = Mapping[str, CostMetric]


def cost_metrics(
    space: SearchSpace, estimators: Mapping[str, LatencyEstimator]
) -> dict[str, CostMetric]:
    """Maps each metric key to the function that computes this cost for archs of the space.

    The keys are `macs`, `params`, ..., `latency_ms@device` of every estimator,
    `latency_p95_ms@device` of those whose table was validated on whole networks, and
    `energy_mj@device` of every table with energies.
    """

    def analytic(metric: AnalyticMetric) -> CostMetric:
        return lambda codes: cost(space, codes, metric).astype(np.float64)

    metrics: dict[str, CostMetric] = {name: analytic(name) for name in get_args(AnalyticMetric)}
    tables = [one for one in estimators.values() if isinstance(one, TableEstimator)]
    together = LatenciesTogether(tables) if len(tables) == len(estimators) > 1 else None
    for column, (device, estimator) in enumerate(estimators.items()):
        metrics[MetricKey("latency_ms", device)] = (
            estimator.latency_ms if together is None else CostColumn(together, column)
        )
        if not isinstance(estimator, TableEstimator) or estimator.table.corrections:
            metrics[MetricKey("latency_p95_ms", device)] = estimator.latency_p95_ms
        if isinstance(estimator, TableEstimator) and estimator.table.has_energy:
            metrics[MetricKey("energy_mj", device)] = estimator.energy_mj
    return metrics


def with_chances(
    metrics: Mapping[str, CostMetric],
    constraints: Iterable[Constraint],
    estimators: Mapping[str, LatencyEstimator],
) -> dict[str, CostMetric]:
    """Adds the metrics of limits with a probability, such as `latency_ms~0.9@phone`.

    The added metrics raise a `UserError` when they are called, if the table was never validated on
    whole networks.
    """

    def bound(latency: CostMetric, estimator: LatencyEstimator, probability: float) -> CostMetric:
        def metric(codes: Codes) -> FloatArray:
            widening = estimator.bound_ms(codes, probability) / estimator.latency_ms(codes)
            return latency(codes) * widening

        return metric

    chances: dict[str, CostMetric] = {
        metric_key(one): bound(metrics[metric_key(one).base], estimators[one.device], p)
        for one in constraints
        if (p := one.probability) is not None and one.device in estimators
    }
    return {**metrics, **chances}


def prices(
    project: Project,
    corrected: Corrected = MappingProxyType({}),
    *,
    limits: Iterable[Constraint] = (),
) -> dict[str, CostMetric]:
    """Maps each metric key of the project to its function; reads all existing latency tables.

    corrected: latencies that replace the estimates of the tables.
    limits: limits besides those of the project; some may have a probability.
    """
    profiled = [name for name in project.devices if project.files.table(name).exists()]
    estimators = {name: project.estimator(name) for name in profiled}
    return _metrics(project, estimators, corrected, limits)


def known_metrics(project: Project) -> dict[str, CostMetric]:
    """Like `prices`, but only with tables that are up to date, or that devices' files name."""
    estimators = {}
    for name in project.devices:
        if is_profiled(project, name):
            estimators[name] = project.estimator(name)
        elif (file := table_file(project, name)) is not None and file.is_file():
            estimators[name] = project.estimator(name, known_table(project, name, file))
    return _metrics(project, estimators)


def _metrics(
    project: Project,
    estimators: Mapping[str, TableEstimator],
    corrected: Corrected = MappingProxyType({}),
    limits: Iterable[Constraint] = (),
) -> dict[str, CostMetric]:
    metrics = {**cost_metrics(project.space, estimators), **corrected}
    constraints = [c for device in targets(project) for c in constraints_for(project, device)]
    return with_chances(metrics, [*constraints, *limits], estimators)


def latency_spreads(project: Project) -> list[dict[str, object]]:
    """Rows with the range and quartiles of the space's latencies in ms, one per profiled device.

    `limit` is the latency limit of the device; None if it has none.
    """
    metrics = known_metrics(project)
    rows: list[dict[str, object]] = []
    for device in project.devices:
        if (key := MetricKey("latency_ms", device)) in metrics:
            given = [c for c in project.config.search.constraints if metric_key(c) == key]
            limits = resolve(given, metrics, project.space)
            spread = latency_spread(metrics[key], project.space)
            limit = limits[0].max if limits else None
            rows.append({"device": device, "unit": "ms", **spread, "limit": limit})
    return rows


def require_reachable(project: Project) -> None:
    """Refuses constraints that no arch meets; skips latencies without an up-to-date table.

    Raises:
        UserError: names the nearest feasible arch and its costs.
    """
    metrics = known_metrics(project)
    profiled = {key.device for key in metrics if isinstance(key, MetricKey)}
    for device in targets(project):
        given = constraints_for(project, device)
        priced = [limit for limit in given if metric_key(limit).device in (None, *profiled)]
        share = project.config.search.limits_met_on
        limits = resolve(priced, metrics, project.space, share=share)
        reach(project.space, metrics, limits, seed=project.config.seed)
