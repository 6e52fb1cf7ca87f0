"""The exported files of a project: formats per network, and the file of each device."""

from __future__ import annotations

from pathlib import Path

from hwnas.core.command import command_line
from hwnas.core.errors import UserError
from hwnas.exporters.artifact import PlannedFormat, artifact_of, as_trained
from hwnas.exporters.base import FormatConfig
from hwnas.interfaces import DeviceSpec, EightBits
from hwnas.pipeline.listings import listed
from hwnas.pipeline.outcomes import Exported
from hwnas.pipeline.project import Project
from hwnas.pipeline.winners import networks, winner_role
from hwnas.spaces.arch import Arch

__all__ = [
    "artifacts_are_there",
    "exported_artifact",
    "exports_of",
    "file_of",
    "formats_for",
    "in_bundle",
    "rounding_of",
    "winning_archs",
]


def winning_archs(project: Project) -> set[Arch]:
    """The winners of all devices."""
    roles = networks(project)
    return {roles[winner_role(project, device)] for device in project.devices}


def formats_for(project: Project, *, is_winner: bool) -> tuple[PlannedFormat, ...]:
    """The formats to which a network is exported."""
    float_onnx, *others = project.formats
    formats = float_onnx, *(one for one in others if is_winner or one.devices)
    return as_trained(formats) if project.config.finetune.precision == "int8" else formats


def rounding_of(project: Project) -> EightBits | None:
    """The rounding that 8-bit training imitates: of a device's 8-bit format, else of any other.

    None if no exported 8-bit format can be imitated in training.
    """
    eight = [d.name for d in project.devices.values() if d.precision == "int8"]
    roundings = [
        (one, one.config.rounding)
        for one in project.formats
        if isinstance(one.config, FormatConfig) and one.config.rounding is not None
    ]
    own = (rounding for name in eight for one, rounding in roundings if name in one.devices)
    return next(own, next((rounding for _, rounding in roundings), None))


def exported_artifact(project: Project, arch: Arch, device: DeviceSpec) -> Exported:
    """The exported file of a network for a device.

    Raises:
        UserError: an earlier version did not export it.
    """
    path = artifact_of(project.formats, device).path
    exported = exports_of(project, arch)
    for one in exported:
        if one.model.path == path:
            return one
    raise UserError(
        f"the network {arch.key} was not exported for the device {device.name!r}",
        expected=f"the file {path}",
        found=f"the files {', '.join(one.model.path for one in exported) or '(none)'}",
        where=project.files.exported_network(arch),
        fix=command_line("export", project.run.root),
    )


def exports_of(project: Project, arch: Arch) -> tuple[Exported, ...]:
    """The exported formats of a network.

    Raises:
        UserError: the network was not exported.
    """
    fix = command_line("export", project.run.root)
    found, where = project.files.read_exports(), project.files.exports
    return listed(found, arch.key, what="the exports of a network", where=where, fix=fix)


def artifacts_are_there(project: Project) -> bool:
    """Whether every network was exported for every device."""
    exports = project.files.read_exports()
    paths = {artifact_of(project.formats, device).path for device in project.devices.values()}
    return all(paths <= {one.model.path for one in exports[key]} for key in exports)


def in_bundle(project: Project, arch: Arch, device: DeviceSpec) -> list[Exported]:
    """A winner's files for the bundle of a device; the first is the file that the device runs."""
    artifact = exported_artifact(project, arch, device)
    unwanted = {one.path for one in project.formats if not one.belongs_to(device.name)}
    others = [
        one
        for one in exports_of(project, arch)
        if one.files and one != artifact and one.model.path not in unwanted
    ]
    return [artifact, *others]


def file_of(project: Project, arch: Arch, one: Exported) -> Path:
    """Path of the exported model in the run folder."""
    return project.files.exported_network(arch) / one.files[0]
