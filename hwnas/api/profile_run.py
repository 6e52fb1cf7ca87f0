"""`hwnas profile DEVICE --run RUN`: a latency table for a run folder, from its configuration."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwnas.api.options import refuse_both, refuse_unused
from hwnas.api.result import Folder, ProgressFor, Settings, no_progress
from hwnas.api.stage import bring_up_to_date
from hwnas.core.errors import UserError
from hwnas.devices.spec import load_device
from hwnas.latency.table import LatencyTable
from hwnas.pipeline.opening import open_project
from hwnas.pipeline.project import Project
from hwnas.spaces.space import SearchSpace

__all__ = ["device_name", "profile_for_run", "refuse_config", "run_changes"]


def refuse_config(config: str | None) -> None:
    """Refuses a configuration without a run folder.

    Raises:
        UserError: there is a configuration.
    """
    refuse_unused(
        {"--config": config},
        to="a table without a run folder",
        fix="add --run RUN, or give --space and --profile in place of --config",
    )


def run_changes(
    device: str,
    run: Folder,
    config: str | None,
    *,
    space: SearchSpace | str | None,
    resolutions: Sequence[int] | None,
    settings: Settings,
    num_classes: int | None,
    profile_settings: Settings,
    out: Folder | None,
    seed: int | None,
) -> dict[str, Any]:
    """Settings with which a run folder profiles a device.

    Raises:
        UserError: arguments that the configuration of the run defines, or a device that is not in
            the run.
    """
    refuse_unused(
        {
            "--space": space,
            "--resolutions": resolutions,
            "--num-classes": num_classes,
            "--out": out,
            "--seed": seed,
        },
        to="a run folder, whose configuration defines this",
        fix="leave it out; --set KEY=VALUE changes the configuration, e.g. space.resolutions=[16]"
        f" or seed=1, and the table is written to {Path(run) / 'tables' / 'DEVICE.json'}",
    )
    changes = dict(settings or {})
    for key, value in (profile_settings or {}).items():
        refuse_both(f"--profile {key}", value, f"profile.{key}", settings)
        changes[f"profile.{key}"] = value
    with open_project(
        Path(run),
        config=config,
        changes=changes,
        progress_for=no_progress,
        command="hwnas profile",
        read_only=True,
    ) as project:
        _require_device(project, device)
    return changes


def _require_device(project: Project, device: str) -> None:
    """Refuses a device that the run does not have, or another one with the same name.

    Raises:
        UserError: names the devices of the run.
    """
    name, known = device_name(device), ", ".join(project.devices)
    if name not in project.devices:
        raise UserError(
            f"{name!r} is not a device of this run",
            expected=f"one of {known}",
            found=device,
            where=project.run.root,
            fix=f"--set {shlex.quote(f'devices=[{known}, {device}]')}",
        )
    if device == name:  # a name refers to the device of the run
        return
    if (given := load_device(device)) != (own := project.devices[name]):
        other = [key for key, value in vars(own).items() if value != getattr(given, key)]
        raise UserError(
            f"another device is called {name!r} in this run",
            expected=", ".join(f"{key}: {getattr(own, key)}" for key in other),
            found=", ".join(f"{key}: {getattr(given, key)}" for key in other),
            where=device,
            fix="give the file that the run has in `devices`, or rename this file",
        )


def device_name(device: str) -> str:
    """Name of a device given by name or by file."""
    return Path(device).stem if Path(device).suffix in (".yaml", ".yml") else device


def profile_for_run(
    device: str, run: Path, config: str | None, changes: dict[str, Any], progress: ProgressFor
) -> LatencyTable:
    """Brings stage `profile/DEVICE` of a run up to date; replaces a table of another machine."""
    from hwnas.pipeline.foreign_tables import foreign_tables

    name = device_name(device)
    return bring_up_to_date(
        run,
        f"profile/{name}",
        config=config,
        changes=changes,
        progress=progress,
        anew=lambda project: foreign_tables(project, name),
        found=lambda project: project.files.read_table(name),
    )
