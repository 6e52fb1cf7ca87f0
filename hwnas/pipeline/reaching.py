"""Constraints that nothing meets are told before anything costly is done for them."""

from __future__ import annotations

from hwnas.pipeline.metrics import prices
from hwnas.pipeline.project import Project
from hwnas.search.constraints import metric_key, reach, resolve

__all__ = ["require_reachable"]


def require_reachable(project: Project) -> None:
    """Refuse constraints that no arch of the space meets, as far as the tables there are can tell.

    Raises:
        UserError: names the nearest reachable arch and its costs.
    """
    metrics = prices(project)
    priced = [
        constraint
        for constraint in project.config.search.constraints
        if not constraint.metric.startswith("latency") or metric_key(constraint) in metrics
    ]
    limits = resolve(priced, metrics, project.space)
    reach(project.space, metrics, limits, seed=project.config.seed)
