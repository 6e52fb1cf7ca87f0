"""Stage `profile`: a device's latency table for the project's space."""

from __future__ import annotations

from pathlib import Path

from hwnas.core.errors import UserError
from hwnas.core.progress import Progress
from hwnas.latency.config import ProfileConfig
from hwnas.latency.construction import contexts
from hwnas.latency.table import LatencyTable
from hwnas.pipeline.profiling import profile
from hwnas.pipeline.project import Project
from hwnas.spaces.index import enumerate_ops
from hwnas.spaces.space import SearchSpace

__all__ = ["describe_cost", "measure", "refit"]


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
