"""Finds problems that would stop a search, before the first stage runs; see `checks.py`."""

from __future__ import annotations

import numpy as np

from hwnas.controller.constraints import metric_key
from hwnas.controller.staged import check_stages
from hwnas.core.errors import UserError
from hwnas.interfaces import Searcher, SearcherContext
from hwnas.pipeline.costs import known_metrics, require_reachable
from hwnas.pipeline.foreign_tables import table_file
from hwnas.pipeline.project import Project
from hwnas.pipeline.winners import constraints_for, targets
from hwnas.predictors import REGISTRY as PREDICTORS
from hwnas.searchers import REGISTRY as SEARCHERS

__all__ = ["can_search", "limits_can_be_met"]

MOST_PROBES = 100_000


def can_search(project: Project) -> None:
    """Refuses a search that would fail because of its limits or its searcher.

    Raises:
        UserError: gives the reason.
    """
    limits_can_be_met(project)
    section = project.config.search
    check_stages(project.space, section)
    module = SEARCHERS.load(section.searcher.name)
    searcher = module.build(section.searcher, SearcherContext(project.space, project.config.seed))
    most = getattr(module, "MAX_CONSTRAINTS", None)
    for device in targets(project):
        n = len(constraints_for(project, device))
        if most is not None and n > most:
            raise UserError(
                f"searcher {section.searcher.name!r} takes at most {most} constraint",
                expected=f"at most {most} constraint per device",
                found=f"{n} constraints",
                where="search.constraints",
                fix="remove further constraints, or search with `evolution` or `policy_gradient`",
            )
    if project.needs_sums:
        _scores_are_sums(project)
        _costs_are_sums(project, searcher)


def limits_can_be_met(project: Project) -> None:
    """Refuses limits on unknown devices, and limits that no arch meets (`require_reachable`).

    Raises:
        UserError: names the limit.
    """
    project.require_limited_devices()
    for number, limit in enumerate(project.config.search.constraints):
        if limit.metric == "energy_mj" and table_file(project, limit.device) is None:
            raise UserError(
                f"a limit is on the energy on {limit.device!r}, which hwnas cannot measure",
                expected="a device whose file names a table with energies (`transport: table`)",
                found=f"the transport {project.devices[limit.device].transport}",
                where=f"search.constraints.{number}",
                fix="limit the latency, or name a table such as the published hw_nasbench201"
                " (`hwnas table convert`)",
            )
    require_reachable(project)


def _scores_are_sums(project: Project) -> None:
    """Refuses a predictor that declares that its scores are not sums over blocks."""
    config = project.config.predictor
    is_sum = getattr(PREDICTORS.load(config.name), "is_sum", None)
    if is_sum is None or not is_sum(config):
        raise UserError(
            f"searcher {project.config.search.searcher.name!r} needs a score that is a sum over"
            " blocks",
            expected="a linear predictor: {name: ridge, has_costs: false}",
            found=config.model_dump(mode="json", exclude_defaults=True) | {"name": config.name},
            where="predictor",
            fix="predictor.name=ridge and predictor.has_costs=false, or search with `evolution`"
            " or `policy_gradient`",
        )


def _costs_are_sums(project: Project, searcher: Searcher) -> None:
    """Lets the searcher check the known costs of its first archs for additivity, without scores."""
    metrics = known_metrics(project)
    limits = constraints_for(project, targets(project)[0])
    if not limits or metric_key(limits[0]) not in metrics:
        return
    codes = searcher.ask(MOST_PROBES)
    cost = metrics[metric_key(limits[0])](codes)
    nothing = np.zeros(len(codes))
    searcher.tell(codes, nothing, np.stack([nothing, cost / cost.max()], axis=1))
