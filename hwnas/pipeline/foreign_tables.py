"""Selects the latency tables of a run folder that fit its settings and this machine.

Those of another machine are read, but never compared with timings here.
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
    """What the table of a device depends on."""
    return [
        project.config.seed,
        project.space_settings,
        dump(project.devices[device]),
        project.settled["profile"],
    ]


def is_profiled(project: Project, device: str) -> bool:
    """Whether the table that is there stays, as it is of the present settings."""
    return is_done(project.run, f"profile/{device}", table_settings(project, device))


def require_own_table(project: Project, device: str) -> None:
    """Refuse to re-time against a table of a local device that another machine measured.

    Raises:
        UserError: the table is another machine's.
    """
    if (measured_on := _foreign_cpu(project, device)) is not None:
        raise UserError(
            f"the latency table of {device!r} was measured on another machine, so it cannot be "
            "checked by timing on this machine",
            expected=measured_on,
            found=host_facts()["cpu"],
            where=project.files.table(device),
            fix=command_line("profile", device, "--run", project.run.root)
            + "; or continue over there",
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
