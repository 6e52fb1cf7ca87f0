"""`hwnas run`: the whole pipeline, from a configuration to a proven winner."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.options import DryRunOption, FormatOption, SetOption
from hwnas.cli.output import Format, emit, progress_for
from hwnas.core.config import assignments

if TYPE_CHECKING:
    from hwnas.pipeline.project import Project

__all__ = ["emit_plan", "finish", "register"]

ReportOnly = Annotated[
    bool, typer.Option("--report-only", help="Exit 0 even if a check fell short; say so only.")
]


def register(parent: typer.Typer) -> None:
    """Add the verb to the command line."""
    parent.command("run")(run)


def run(
    config: Annotated[str, typer.Argument(help="A shipped name (`hwnas list configs`) or a path.")],
    folder: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="Run folder [runs/CONFIG].")
    ] = None,
    settings: SetOption = None,
    format: FormatOption = Format.table,
    dry_run: DryRunOption = False,
    report_only: ReportOnly = False,
) -> None:
    """Profile, train, label, predict, search, fine-tune, export, verify and report.

    Continues whatever the run folder holds. Example: `hwnas run quickstart --dry-run`.
    """
    from hwnas.pipeline.engine import execute
    from hwnas.pipeline.graph import stages_of
    from hwnas.pipeline.project import open_project

    with open_project(
        folder or Path("runs") / Path(config).stem,
        config=config,
        changes=assignments(settings or ()),
        progress_for=progress_for,
        command=f"hwnas run {config}",
        read_only=dry_run,
    ) as project:
        stages = stages_of(project)
        if dry_run:
            emit_plan(project, format)
            return
        execute(stages, project.run)
        finish(project, format, report_only=report_only)


def emit_plan(project: Project, format: Format) -> None:
    """What would run, why, and what it costs."""
    from hwnas.pipeline.engine import plan_stages
    from hwnas.pipeline.graph import stages_of

    ledger = project.run.ledger()
    rows = [
        {
            "stage": plan.stage.name,
            "status": plan.status,
            "cost": plan.stage.cost,
            "seconds": ledger[plan.stage.name].seconds if plan.stage.name in ledger else None,
        }
        for plan in plan_stages(stages_of(project), project.run)
    ]
    emit(rows, format=format, title=str(project.run.root), run=str(project.run.root))


def finish(project: Project, format: Format, *, report_only: bool) -> None:
    """Write the report, print the closing table, and hold the run to its promises."""
    import logging

    from hwnas.core.errors import CheckFailed, NotJudged
    from hwnas.studies.run_report import write_run_report

    log = logging.getLogger("hwnas.cli")
    results = project.files.results.read()
    report = write_run_report(project)
    emit(
        [row.summary() for row in results.networks],
        format=format,
        title=f"{project.config.name}, search {project.config.search.name!r}",
        checks=[check.summary() for check in results.checks],
        predictor=results.predictor,
        report=str(report),
    )
    for check in results.checks:
        log.info("%-4s %s: %s", check.state, check.name, check.detail)
    log.info("report: %s", report)
    if report_only:
        return
    if failed := results.of(passed=False):
        raise CheckFailed(
            "the run fell short of its promise",
            found="; ".join(map(str, failed)),
            where=report,
            fix="see the report; `--report-only` accepts it",
        )
    if unknown := results.of(passed=None):
        raise NotJudged(
            "checks could not be judged",
            found="; ".join(map(str, unknown)),
            where=report,
            fix="repeat the command when the machine is as quiet as when it was profiled, which"
            " measures again; or profile it anew; `--report-only` accepts it",
        )
