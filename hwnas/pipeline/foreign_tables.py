"""Run folders moved from another machine: its tables are read, never compared with timings here."""

from __future__ import annotations

import logging

from hwnas.core.env import host_facts
from hwnas.core.errors import UserError
from hwnas.pipeline.project import Project

__all__ = ["require_own_table", "set_aside_foreign_table"]

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
            where=project.files.table(device),
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
        [project.files.table(device), project.files.samples(device)],
    )
    run.forget(stage)
    log.warning("%s: the table of another machine (%s) was moved to %s", stage, cpu, where)


def _foreign_cpu(project: Project, device: str) -> str | None:
    """The processor that a local device's table is of, if it is not this machine's."""
    if project.devices[device].transport != "local" or not project.files.table(device).exists():
        return None
    cpu = str(project.files.read_table(device).facts.get("cpu"))
    return None if cpu == host_facts()["cpu"] else cpu
