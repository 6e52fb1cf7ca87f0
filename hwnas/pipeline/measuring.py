"""Stage `profile`: a device's latency table for the project's space."""

from __future__ import annotations

from hwnas.core.progress import Progress
from hwnas.latency.config import ProfileConfig
from hwnas.latency.construction import contexts
from hwnas.pipeline.profiling import profile
from hwnas.pipeline.project import Project
from hwnas.spaces.ops import enumerate_ops
from hwnas.spaces.space import SearchSpace

__all__ = ["describe_cost", "measure"]


def measure(project: Project, device: str, progress: Progress) -> None:
    """Measure the table; what was timed before an interruption is kept."""
    table = profile(
        project.space,
        project.devices[device],
        project.run.path("tables", device),
        project.config.profile,
        seed=project.config.seed,
        progress=progress,
    )
    table.save(project.table_path(device))


def describe_cost(space: SearchSpace, config: ProfileConfig) -> str:
    """What measuring a table of this space takes, in words."""
    ops = enumerate_ops(space)
    n_items = len(ops) + len(contexts(ops)) + config.n_validation
    return (
        f"{n_items} models ({len(ops)} ops, {config.n_validation} whole nets) x {config.rounds}"
        f" rounds, at most {config.time_budget_s:.0f} s of timing"
    )
