"""Checks whether latency tables of a run folder fit its settings and this machine.

Tables of another machine can be read, but are never compared with timings of this machine.
"""

from __future__ import annotations

from typing import Any

from hwnas.core.command import command_line
from hwnas.core.env import host_facts
from hwnas.core.errors import UserError
from hwnas.core.records import dump
from hwnas.pipeline.plan import is_done
from hwnas.pipeline.project import Project

__all__ = ["foreign_tables", "is_profiled", "require_own_table", "table_settings"]


def table_settings(project: Project, device: str) -> list[Any]:
    """Settings on which the table of a device depends."""
    return [
        project.config.seed,
        project.space_settings,
        dump(project.devices[device]),
        project.settled["profile"],
    ]


def is_profiled(project: Project, device: str) -> bool:
    """Whether the table of a device is up to date, so that it will not be measured again."""
    return is_done(project.run, f"profile/{device}", table_settings(project, device))


def require_own_table(project: Project, device: str) -> None:
    """Refuses to re-time on a local device if another machine measured its table.

    Raises:
        UserError: the table is from another machine.
    """
    if (measured_on := _foreign_cpu(project, device)) is not None:
        raise UserError(
            f"the latency table of {device!r} was measured on another machine, so it cannot be "
            "checked by timing on this machine",
            expected=f"the processor {measured_on}",
            found=f"the processor {host_facts()['cpu']}",
            where=project.files.table(device),
            fix=command_line("profile", device, "--run", project.run.root)
            + "; or continue on that machine",
        )


def foreign_tables(project: Project, device: str) -> dict[str, str]:
    """Maps `profile/DEVICE` to the reason to repeat it, if another machine measured the table."""
    if device not in project.devices or (cpu := _foreign_cpu(project, device)) is None:
        return {}
    return {f"profile/{device}": f"the table of another machine ({cpu}) was moved to"}


def _foreign_cpu(project: Project, device: str) -> str | None:
    """CPU of a local device's table, if it differs from that of this machine."""
    if project.devices[device].transport != "local" or not project.files.table(device).exists():
        return None
    cpu = str(project.files.read_table(device).facts.get("cpu"))
    return None if cpu == host_facts()["cpu"] else cpu
