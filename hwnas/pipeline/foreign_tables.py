"""Latency tables of a run folder that were not measured on this machine for its settings.

Tables of another machine can be read, but are never compared with timings of this machine. On a
device of which only a table is known (transport `table`), nothing is timed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from hwnas.core.command import command_line
from hwnas.core.env import host_facts
from hwnas.core.errors import UserError
from hwnas.core.records import dump
from hwnas.devices.runtimes import runtime_names
from hwnas.interfaces import DeviceSpec
from hwnas.latency.estimator import TableEstimator
from hwnas.latency.shipped import latency_table
from hwnas.latency.table import LatencyTable
from hwnas.pipeline.outside import table_setting
from hwnas.pipeline.plan import is_done
from hwnas.pipeline.project import Project

__all__ = [
    "foreign_tables",
    "is_profiled",
    "known_table",
    "require_known",
    "require_own_table",
    "table_file",
    "table_settings",
    "timed_devices",
]

ALWAYS_KNOWN = ("precision", "batch")
KNOWN_OF_RUNTIMES = ("runtime", "provider", "threads")  # published tables may not say them


def table_settings(project: Project, device: str) -> list[Any]:
    """Settings on which the table of a device depends."""
    if table_file(project, device) is not None:
        digest = project.outside.sha256(table_setting(device))
        return [project.space_settings, dump(project.devices[device]), digest]
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


# --- devices of which only a table is known -------------------------------------------------------


def timed_devices(project: Project) -> dict[str, DeviceSpec]:
    """The devices of the project on which networks can be timed, by name."""
    return {
        name: spec for name, spec in project.devices.items() if table_file(project, name) is None
    }


def table_file(project: Project, device: str) -> Path | None:
    """The file of a device's table if only its table is known; None if it can be timed."""
    setting = table_setting(device)
    return project.outside.paths(setting).get(setting)


def known_table(project: Project, device: str, file: Path) -> LatencyTable:
    """The table in `file`, as a table of the project's device.

    Raises:
        UserError: the table is unreadable, or describes a device with other settings.
    """
    is_shipped = file.suffix != ".json" and not file.is_file()  # the name of none
    table, spec = latency_table(file.name if is_shipped else file), project.devices[device]
    is_known = table.device.runtime in runtime_names()
    compared = (KNOWN_OF_RUNTIMES if is_known else ()) + ALWAYS_KNOWN
    here, there = (
        ", ".join(f"{key}: {getattr(one, key)}" for key in compared) for one in (spec, table.device)
    )
    if here != there:
        raise UserError(
            f"the latency table of {device!r} is one of a device with other settings",
            expected=here,
            found=there,
            where=file,
            fix=f"set them in the file of the device ({device}.yaml), or give another table",
        )
    if (table.source == "simulated") != device.startswith("simulated-"):
        raise UserError(
            f"the device {device!r} and its table are not both simulated",
            expected="the source `simulated` and a device simulated-*, or neither",
            found=f"a table with the source {table.source}",
            where=file,
            fix="rename the file of the device",
        )
    return replace(table, device=spec)


def require_known(project: Project, device: str, file: Path) -> None:
    """Checks `known_table`, and that it has all operators of the space.

    Raises:
        UserError: as in `known_table`, or operators are missing.
    """
    TableEstimator(known_table(project, device, file), project.space)
