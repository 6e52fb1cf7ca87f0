"""The verbs that run one stage of a run folder: train, label, search, finetune, export, verify."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.options import ConfigOption, DryRunOption, FormatOption, RunArgument, SetOption
from hwnas.cli.output import Format, emit, progress_for
from hwnas.cli.run import ReportOnly, emit_plan, finish

if TYPE_CHECKING:
    from hwnas.pipeline.project import Project

__all__ = ["register", "run_stage"]


def run_stage(
    folder: Path,
    prefix: str,
    *,
    config: str | None,
    settings: list[str] | None,
    format: Format,
    dry_run: bool,
    show: Callable[[Project], None],
) -> None:
    """Bring the stages called `prefix` or `prefix/...` up to date, then `show` the outcome."""
    from hwnas.pipeline.graph import stages_of
    from hwnas.pipeline.project import open_project
    from hwnas.pipeline.stages import execute

    with open_project(
        folder,
        config=config,
        assignments=settings or (),
        progress_for=progress_for,
        command=f"hwnas {prefix}",
        read_only=dry_run,
    ) as project:
        if dry_run:
            emit_plan(project, format)
            return
        stages = stages_of(project)
        only = [s.name for s in stages if s.name == prefix or s.name.startswith(f"{prefix}/")]
        execute(stages, project.run, only=only)
        show(project)


def train(
    folder: RunArgument,
    config: ConfigOption = None,
    settings: SetOption = None,
    format: FormatOption = Format.table,
    dry_run: DryRunOption = False,
) -> None:
    """Train the supernet. Example: `hwnas train runs/quickstart --config quickstart --dry-run`."""

    def show(project: Project) -> None:
        rows = project.run.metrics("train")[-1:]
        emit(
            [{"step": row["step"], **{f"top1 {k}": v for k, v in row["top1"].items()}} for row in rows],
            format=format,
        )

    run_stage(
        folder, "train", config=config, settings=settings, format=format, dry_run=dry_run, show=show
    )


def label(
    folder: RunArgument,
    config: ConfigOption = None,
    settings: SetOption = None,
    format: FormatOption = Format.table,
    dry_run: DryRunOption = False,
) -> None:
    """Score sampled subnets. Example: `hwnas label runs/quickstart --config quickstart --dry-run`."""

    def show(project: Project) -> None:
        from hwnas.pipeline.training import labelled

        top1 = sorted(evaluation.top1 for evaluation in labelled(project)[1])
        emit(
            [{"labels": len(top1), "lowest": top1[0], "median": top1[len(top1) // 2],
              "highest": top1[-1]}],
            format=format,
        )

    run_stage(
        folder, "label", config=config, settings=settings, format=format, dry_run=dry_run, show=show
    )


def search(
    folder: RunArgument,
    config: ConfigOption = None,
    settings: SetOption = None,
    format: FormatOption = Format.table,
    dry_run: DryRunOption = False,
) -> None:
    """Find the best archs under the constraints, with random search beside.

    Example: `hwnas search runs/quickstart --config quickstart --dry-run`.
    """

    def show(project: Project) -> None:
        from hwnas.pipeline.searching import read_result

        found = {"winner": read_result(project), "random search": read_result(project, baseline=True)}
        emit(
            [
                {"network": role, "score": result.winner.score, **result.winner.costs}
                for role, result in found.items()
            ],
            format=format,
        )

    run_stage(
        folder, "search", config=config, settings=settings, format=format, dry_run=dry_run, show=show
    )


def finetune(
    folder: RunArgument,
    config: ConfigOption = None,
    settings: SetOption = None,
    format: FormatOption = Format.table,
    dry_run: DryRunOption = False,
) -> None:
    """Fine-tune the winner and its baselines.

    Example: `hwnas finetune runs/quickstart --config quickstart --dry-run`.
    """

    def show(project: Project) -> None:
        from hwnas.pipeline.finetuning import networks

        emit([{"network": k, "arch": v.key} for k, v in networks(project).items()], format=format)

    run_stage(
        folder,
        "finetune",
        config=config,
        settings=settings,
        format=format,
        dry_run=dry_run,
        show=show,
    )


def export(
    folder: RunArgument,
    config: ConfigOption = None,
    settings: SetOption = None,
    format: FormatOption = Format.table,
    dry_run: DryRunOption = False,
) -> None:
    """Export the fine-tuned networks and check their parity.

    Example: `hwnas export runs/quickstart --config quickstart --dry-run`.
    """

    def show(project: Project) -> None:
        from hwnas.core.records import dump
        from hwnas.pipeline.exporting import parity_reports

        emit(
            [
                {"arch": key, **dump(batch, versioned=False)}
                for key, report in parity_reports(project).items()
                for batch in report.batches
            ],
            format=format,
        )

    run_stage(
        folder, "export", config=config, settings=settings, format=format, dry_run=dry_run, show=show
    )


def verify(
    folder: RunArgument,
    config: ConfigOption = None,
    settings: SetOption = None,
    format: FormatOption = Format.table,
    dry_run: DryRunOption = False,
    report_only: ReportOnly = False,
) -> None:
    """Re-time and test what was exported; exit 3 if it falls short.

    Example: `hwnas verify runs/quickstart --config quickstart --dry-run`.
    """
    run_stage(
        folder,
        "verify",
        config=config,
        settings=settings,
        format=format,
        dry_run=dry_run,
        show=lambda project: finish(project, format, report_only=report_only),
    )


def report(folder: RunArgument, search: Annotated[str | None, typer.Option(help="Which search.")] = None) -> None:
    """Write report.html of what the run folder holds so far. Example: `hwnas report --help`."""
    import sys

    from hwnas.pipeline.project import open_project
    from hwnas.pipeline.reporting import write_run_report

    settings = [f"search.name={search}"] if search else []
    with open_project(
        folder, assignments=settings, progress_for=progress_for, command="hwnas report", read_only=True
    ) as project:
        sys.stdout.write(f"{write_run_report(project)}\n")


def status(
    folder: RunArgument, settings: SetOption = None, format: FormatOption = Format.table
) -> None:
    """What is done, stale or missing in a run folder. Example: `hwnas status --help`."""
    from hwnas.pipeline.project import open_project

    with open_project(
        folder,
        assignments=settings or (),
        progress_for=progress_for,
        command="hwnas status",
        read_only=True,
    ) as project:
        emit_plan(project, format)


def register(parent: typer.Typer) -> None:
    """Add the verbs to the command line."""
    for verb in (train, label, search, finetune, export, verify, report, status):
        parent.command()(verb)
