"""`hwnas export` and `hwnas verify`: deployable files, and the proof that they keep their word."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.cli.options import ConfigOption, DryRunOption, FormatOption, RunArgument, SetOption
from hwnas.cli.output import Format, emit, progress_for
from hwnas.cli.run import ReportOnly, finish
from hwnas.cli.stages import run_stage
from hwnas.core.config import assignments

if TYPE_CHECKING:
    from hwnas.pipeline.project import Project

__all__ = ["register"]


def register(parent: typer.Typer) -> None:
    """Add the verbs to the command line."""
    parent.command()(export)
    parent.command()(verify)


def export(
    folder: RunArgument,
    config: ConfigOption = None,
    formats: Annotated[
        str | None,
        typer.Option(help="Comma-separated: onnx,fp16,int8,ort,pt2,timm,... [as configured]."),
    ] = None,
    settings: SetOption = None,
    format: FormatOption = Format.table,
    dry_run: DryRunOption = False,
) -> None:
    """Export the fine-tuned networks and check their parity.

    `hwnas list exporters` names the formats. `hwnas verify RUN` then writes the bundle.

    Example: `hwnas export runs/quickstart --config quickstart --formats onnx,int8 --dry-run`.
    """
    changes = assignments(settings or ())
    if formats is not None:
        changes["export"] = _formats(folder, config, formats, changes)
    run_stage(
        folder,
        "export",
        config=config,
        changes=changes,
        format=format,
        dry_run=dry_run,
        show=lambda project: emit(_export_rows(project), format=format),
    )


def _formats(
    folder: Path, config: str | None, formats: str, changes: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """`--formats` as sections of the configuration; what is configured of a format stays."""
    from hwnas.pipeline.config import with_formats
    from hwnas.pipeline.project import open_project

    with open_project(
        folder,
        config=config,
        changes=changes,
        progress_for=progress_for,
        command="hwnas export",
        read_only=True,
    ) as project:
        return with_formats(formats.split(","), project.config.export)


def _export_rows(project: Project) -> list[dict[str, Any]]:
    return [
        {"arch": key, **one.summary()}
        for key, rows in project.files.read_exports().items()
        for one in rows
    ]


def verify(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN|BUNDLE", help="A run folder, or a bundle.")
    ],
    config: ConfigOption = None,
    settings: SetOption = None,
    format: FormatOption = Format.table,
    dry_run: DryRunOption = False,
    report_only: ReportOnly = False,
    latency: Annotated[bool, typer.Option(help="Of a bundle: re-time it on this host.")] = True,
) -> None:
    """Re-time and test what was exported, or check a bundle; exit 3 if it falls short.

    A bundle is checked against torch on the test split of its data set, which the run folder around
    it tells, or --config.

    Example: `hwnas verify runs/quickstart --config quickstart --dry-run`.
    """
    if (folder / "manifest.json").exists():
        _verify_bundle(folder, config, settings, format, dry_run, report_only, latency)
        return
    run_stage(
        folder,
        "verify",
        config=config,
        changes=assignments(settings or ()),
        format=format,
        dry_run=dry_run,
        show=lambda project: finish(project, format, report_only=report_only),
    )


def _verify_bundle(
    folder: Path,
    config: str | None,
    settings: list[str] | None,
    format: Format,
    dry_run: bool,
    report_only: bool,
    latency: bool,
) -> None:
    import logging

    from hwnas.core.errors import CheckFailed, NotJudged
    from hwnas.core.rundir import RunDir
    from hwnas.exporters.bundle import read_manifest
    from hwnas.measure.bundle_check import verify_bundle
    from hwnas.measure.limits import CheckSettings
    from hwnas.pipeline.project import open_project, stored_config

    if dry_run:
        models = read_manifest(folder).models
        emit([{"model": m.path, "format": m.format, "checks": "torch, test split"} for m in models],
             format=format)  # fmt: skip
        return
    log = logging.getLogger("hwnas.cli")
    around = [p for p in folder.resolve().parents if stored_config(RunDir(p)).is_file()]
    if config is None and not around:
        report = verify_bundle(folder, data=None, settings=None, progress=progress_for("verify"))
    else:
        with open_project(
            around[0] if around else folder,
            config=config,
            changes=assignments(settings or ()),
            progress_for=progress_for,
            command="hwnas verify",
            read_only=True,
        ) as project:
            report = verify_bundle(
                folder,
                data=project.data,
                settings=CheckSettings(
                    project.config.profile, project.config.verify, project.config.seed
                ),
                with_latency=latency,
                threads=project.config.threads,
                progress=progress_for("verify"),
            )
    emit(report.models, format=format, title=str(folder), latency=list(report.latency),
         notes=list(report.notes), failed=list(report.failed),
         not_judged=list(report.not_judged))  # fmt: skip
    if report.latency and format is Format.table:
        emit(report.latency, format=format, title="latency")
    for note in report.notes:
        log.info("note: %s", note)
    for problem in report.failed:
        log.info("FAIL %s", problem)
    for problem in report.not_judged:
        log.info("not judged %s", problem)
    if report_only:
        return
    if report.failed:
        raise CheckFailed(
            "the bundle fell short of its promise",
            found="; ".join(report.failed),
            where=folder,
            fix="export it again, or `--report-only` accepts it",
        )
    if report.not_judged:
        raise NotJudged(
            "checks of the bundle could not be judged",
            found="; ".join(report.not_judged),
            where=folder,
            fix="repeat the command when the machine is quiet; `--report-only` accepts it",
        )
