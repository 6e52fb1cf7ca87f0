"""Stage `profile`: the latency table of a device for the project's space, measured or copied."""

from __future__ import annotations

from pathlib import Path

from hwnas.core.command import command_line
from hwnas.core.errors import UserError
from hwnas.core.progress import Progress, silent
from hwnas.core.versions import set_aside_folders
from hwnas.interfaces import Transport
from hwnas.latency.table import LatencyTable
from hwnas.measure.profile import describe_cost, profile
from hwnas.measure.session_files import known_models
from hwnas.pipeline.checks import asked, can_be_profiled
from hwnas.pipeline.disk import weights_bytes
from hwnas.pipeline.foreign_tables import (
    is_profiled,
    known_table,
    require_known,
    table_file,
    table_settings,
)
from hwnas.pipeline.outside import table_setting
from hwnas.pipeline.plan import Stage
from hwnas.pipeline.project import Project

__all__ = ["refit", "stage"]


def stage(project: Project, device: str) -> Stage:
    """Measures one device, or copies the table of a device of which only the table is known."""
    files, config = project.files, project.config
    table = files.pattern(files.table(device))
    name = f"profile/{device}"
    if (known := table_file(project, device)) is not None:
        return Stage(
            name=name,
            command=command_line("profile", device, "--run", project.run.root),
            needs=(),
            names=("space", "device", "table"),
            settings=table_settings(project, device),
            owns=(table, files.pattern(files.samples(device))),
            outputs=(table,),
            run=lambda: _copied(project, device, known),
            cost=f"copied from {known}",
            reads={table_setting(device): known} if known.suffix == ".json" else {},
            check=lambda: require_known(project, device, known),
        )
    return Stage(
        name=name,
        command=command_line("profile", device, "--run", project.run.root),
        needs=(),
        names=("seed", "space", "device", "profile"),
        settings=table_settings(project, device),
        owns=(table, files.pattern(files.samples(device))),
        outputs=(table,),
        run=lambda: measure(project, device, project.progress(name)),
        cost=_cost(project, device),
        check=lambda: can_be_profiled(project),
        writes=lambda: config.profile.n_validation * sum(weights_bytes(project)) // 8,
        asks=asked(project, [device]),
    )


def _copied(project: Project, device: str, known: Path) -> None:
    known_table(project, device, known).save(project.files.table(device))


def _cost(project: Project, device: str) -> str:
    """Cost of the table, in words, without the models that earlier samples have."""
    config = project.config.profile
    if is_profiled(project, device):
        return describe_cost(project.space, config)
    folders = [project.files.samples(device), *_earlier(project, device)]
    known = known_models(project.devices[device], config, folders)
    return describe_cost(project.space, config, known)


def _earlier(project: Project, device: str) -> list[Path]:
    """Folders in superseded/ with samples of a device, newest first."""
    samples = project.files.pattern(project.files.samples(device))
    folders = [folder / samples for folder in set_aside_folders(project.run)]
    there = [folder for folder in folders if folder.is_dir()]
    return sorted(there, key=lambda folder: folder.stat().st_mtime, reverse=True)


def measure(project: Project, device: str, progress: Progress) -> None:
    """Measures the table; timings before an interruption are kept."""
    _profile(project, device, project.transport(device), progress)


def refit(project: Project, device: str) -> LatencyTable:
    """Rebuilds the table from the samples in the run folder, without timing.

    Raises:
        UserError: the device was not fully profiled with these settings.
    """
    folder = project.files.samples(device)
    if device not in project.devices or not folder.is_dir():
        raise UserError(
            f"no samples of device {device!r}",
            expected="the timings of an earlier `hwnas profile`",
            where=folder,
            fix=command_line("profile", device, "--run", project.run.root),
        )
    return _profile(project, device, _Nothing(), silent)


def _profile(
    project: Project, device: str, transport: Transport, progress: Progress
) -> LatencyTable:
    table = profile(
        project.space,
        project.devices[device],
        project.files.samples(device),
        project.config.profile,
        seed=project.config.seed,
        progress=progress,
        transport=transport,
        earlier=_earlier(project, device),
    )
    table.save(project.files.table(device))
    return table


class _Nothing:
    """A Transport that leaves the results unchanged."""

    def run_bench(self, plan: Path, results: Path, *, progress: Progress) -> None:
        if not results.is_file():
            raise UserError(
                "no samples of this plan",
                expected="a file of timings",
                where=results,
                fix="measure the device with `hwnas profile`",
            )
