"""Run folders moved from another machine: its tables are read, never compared with timings here."""

from __future__ import annotations

from hwnas.core.env import host_facts
from hwnas.core.errors import UserError
from hwnas.pipeline.project import Project

__all__ = ["foreign_tables", "require_own_table"]


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
            where=project.files.table(device),
            fix=f"hwnas profile {device} --run {project.run.root}; or continue over there",
        )


def foreign_tables(project: Project, device: str) -> dict[str, str]:
    """By stage, why `profile` starts anew: a table that another machine measured, if it is one."""
    if device not in project.devices or (cpu := _foreign_cpu(project, device)) is None:
        return {}
    return {f"profile/{device}": f"the table of another machine ({cpu}) was moved to"}


def _foreign_cpu(project: Project, device: str) -> str | None:
    """The processor that a local device's table is of, if it is not this machine's."""
    if project.devices[device].transport != "local" or not project.files.table(device).exists():
        return None
    cpu = str(project.files.read_table(device).facts.get("cpu"))
    return None if cpu == host_facts()["cpu"] else cpu
