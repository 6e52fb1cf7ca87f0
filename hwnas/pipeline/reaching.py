"""Constraints that nothing meets are told before anything costly is done for them."""

from __future__ import annotations

from hwnas.pipeline.metrics import cost_metrics
from hwnas.pipeline.project import Project
from hwnas.search.constraints import reach, resolve

__all__ = ["require_reachable"]


def require_reachable(project: Project) -> None:
    """Refuse constraints that no arch of the space meets, as far as the tables there are can tell.

    Raises:
        UserError: names the nearest reachable arch and its costs.
    """
    measured = [name for name in project.devices if project.table_path(name).exists()]
    metrics = cost_metrics(project.space, {name: project.estimator(name) for name in measured})
    priced = [
        constraint
        for constraint in project.config.search.constraints
        if not constraint.metric.startswith("latency") or constraint.device in measured
    ]
    limits = resolve(priced, metrics, project.space)
    reach(project.space, metrics, limits, seed=project.config.seed)
