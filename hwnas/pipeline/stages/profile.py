"""Stage `profile`: a device's latency table for the project's space."""

from __future__ import annotations

import logging
from pathlib import Path

from hwnas.core.env import host_facts
from hwnas.core.errors import UserError
from hwnas.core.progress import Progress
from hwnas.latency.config import ProfileConfig
from hwnas.latency.construction import contexts
from hwnas.latency.table import LatencyTable
from hwnas.measure.profile import profile
from hwnas.pipeline.project import Project
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.space import SearchSpace

__all__ = ["describe_cost", "measure", "refit", "require_own_table", "set_aside_foreign_table"]


def measure(project: Project, device: str, progress: Progress) -> None:
    """Measure the table; what was timed before an interruption is kept."""
    table = profile(
        project.space,
        project.devices[device],
        project.run.path("tables", device),
        project.config.profile,
        seed=project.config.seed,
        progress=progress,
        transport=project.transport(device),
    )
    table.save(project.table_path(device))


def refit(project: Project, device: str) -> LatencyTable:
    """Rebuild the table from the samples that the run folder holds; nothing is timed.

    Raises:
        UserError: the device was not profiled completely with these settings.
    """
    folder = project.run.path("tables", device)
    if device not in project.devices or not folder.is_dir():
        raise UserError(
            f"no samples of device {device!r}",
            where=folder,
            fix=f"hwnas profile {device} --run {project.run.root}",
        )
    table = profile(
        project.space,
        project.devices[device],
        folder,
        project.config.profile,
        seed=project.config.seed,
        transport=_Nothing(),
    )
    table.save(project.table_path(device))
    return table


class _Nothing:
    """A Transport that leaves the results as they are."""

    def run_bench(self, plan: Path, results: Path, *, progress: Progress) -> None:
        if not results.is_file():
            raise UserError("no samples of this plan", where=results)


def describe_cost(space: SearchSpace, config: ProfileConfig) -> str:
    """What measuring a table of this space takes, in words."""
    ops = enumerate_ops(space)
    n_items = len(ops) + len(contexts(ops)) + config.n_validation
    return (
        f"{n_items} models ({len(ops)} ops, {config.n_validation} whole nets) x {config.rounds}"
        f" rounds, at most {config.time_budget_s:.0f} s of timing"
    )


log = logging.getLogger(__name__)


def require_own_table(project: Project, device: str) -> None:
    """Refuse to re-time against a table of a local device that another machine measured.

    Raises:
        UserError: the table is another machine's.
    """
    if (measured_on := _foreign_cpu(project, device)) is not None:
        raise UserError(
            f"the latency table of {device!r} was measured on another machine, so re-timing here "
            "would prove nothing",
            expected=measured_on,
            found=host_facts()["cpu"],
            where=project.table_path(device),
            fix=f"hwnas profile {device} --run {project.run.root}; or continue over there",
        )


def set_aside_foreign_table(project: Project, device: str) -> None:
    """Move a table that another machine measured to superseded/, so that `profile` starts anew."""
    if device not in project.devices or (cpu := _foreign_cpu(project, device)) is None:
        return
    stage, run = f"profile/{device}", project.run
    record = run.ledger().get(stage)
    where = run.supersede(
        stage,
        record.inputs_hash if record is not None else "unrecorded",
        [project.table_path(device), run.path("tables", device)],
    )
    run.forget(stage)
    log.warning("%s: the table of another machine (%s) was moved to %s", stage, cpu, where)


def _foreign_cpu(project: Project, device: str) -> str | None:
    """The processor that a local device's table is of, if it is not this machine's."""
    path = project.table_path(device)
    if project.devices[device].transport != "local" or not path.exists():
        return None
    cpu = str(LatencyTable.load(path).facts.get("cpu"))
    return None if cpu == host_facts()["cpu"] else cpu
