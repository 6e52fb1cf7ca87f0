"""`hwnas export` and `hwnas verify`: deployable files, and the proof that they keep their word."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.cli.options import ConfigOption, DryRunOption, FormatOption, RunArgument, SetOption
from hwnas.cli.output import Format, emit, progress_for
from hwnas.cli.run import ReportOnly, finish
from hwnas.cli.stages import run_stage

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
    chosen = [] if formats is None else [_formats(folder, config, formats, settings)]
    run_stage(
        folder,
        "export",
        config=config,
        settings=[*(settings or ()), *chosen],
        format=format,
        dry_run=dry_run,
        show=lambda project: emit(_export_rows(project), format=format),
    )


def _formats(folder: Path, config: str | None, formats: str, settings: list[str] | None) -> str:
    """`--formats` as a `--set`; what is configured of a format stays."""
    from hwnas.pipeline.project import open_project
    from hwnas.pipeline.stages.export import with_formats

    with open_project(
        folder,
        config=config,
        assignments=settings or (),
        progress_for=progress_for,
        command="hwnas export",
        read_only=True,
    ) as project:
        return with_formats(formats, project.config.export)


def _export_rows(project: Project) -> list[dict[str, Any]]:
    from hwnas.pipeline.stages.export import exports

    return [
        {"arch": key, **one.summary()} for key, rows in exports(project).items() for one in rows
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
        settings=settings,
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

    from hwnas.core.errors import CheckFailed
    from hwnas.exporters.bundle import read_manifest
    from hwnas.measure.bundle_check import verify_bundle
    from hwnas.pipeline.project import open_project

    if dry_run:
        models = read_manifest(folder).models
        emit([{"model": m.path, "format": m.format, "checks": "torch, test split"} for m in models],
             format=format)  # fmt: skip
        return
    log = logging.getLogger("hwnas.cli")
    around = [p for p in folder.resolve().parents if (p / "config.yaml").is_file()]
    if config is None and not around:
        report = verify_bundle(folder, data=None, config=None, progress=progress_for("verify"))
    else:
        with open_project(
            around[0] if around else folder,
            config=config,
            assignments=settings or (),
            progress_for=progress_for,
            command="hwnas verify",
            read_only=True,
        ) as project:
            report = verify_bundle(
                folder,
                data=project.data,
                config=project.config,
                with_latency=latency,
                threads=project.config.threads,
                progress=progress_for("verify"),
            )
    emit(report.models, format=format, title=str(folder), latency=list(report.latency),
         notes=list(report.notes), failed=list(report.failed))  # fmt: skip
    if report.latency and format is Format.table:
        emit(report.latency, format=format, title="latency")
    for note in report.notes:
        log.info("note: %s", note)
    for problem in report.failed:
        log.info("FAIL %s", problem)
    if report.failed and not report_only:
        raise CheckFailed(
            "the bundle fell short of its promise",
            found="; ".join(report.failed),
            where=folder,
            fix="export it again, or `--report-only` accepts it",
        )
