"""`hwnas run`: the whole pipeline, from a configuration to a verified winner."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import hwnas
from hwnas.cli.options import DryRunOption, FormatOption, ReportOnly, SetOption, config_names
from hwnas.cli.output import Format, progress_for
from hwnas.cli.shared import show, show_plan, show_verdict
from hwnas.core.overrides import assignments

if TYPE_CHECKING:
    from hwnas.api.open_run import Run

__all__ = ["register", "show_run"]


def register(parent: typer.Typer) -> None:
    """Adds the verb to the command line."""
    parent.command("run")(run)


def run(
    config: Annotated[
        str,
        typer.Argument(
            autocompletion=config_names, help="A name from `hwnas list configs`, or a path."
        ),
    ],
    folder: Annotated[
        Path | None,
        typer.Option("--run", metavar="DIR", readable=False, help="Run folder [runs/CONFIG]."),
    ] = None,
    settings: SetOption = None,
    format: FormatOption = Format.table,
    dry_run: DryRunOption = False,
    report_only: ReportOnly = False,
) -> None:
    """Profile, train, label, predict, search, fine-tune, export, verify and report.

    Resumes from the results in the run folder. Example: `hwnas run quickstart --dry-run`.
    """
    changes = assignments(settings or ())
    if dry_run:
        from hwnas.api.run import run_folder

        show_plan(run_folder(config, folder), format, config=config, settings=changes)
        return
    found = hwnas.run(
        config, folder=folder, settings=changes, report_only=True, progress=progress_for
    )
    show_run(found, format, report_only=report_only)


def show_run(run: Run, format: Format, *, report_only: bool) -> None:
    """Prints the result table and the checks; raises an error if a check failed."""
    import logging

    log = logging.getLogger("hwnas.cli")
    show(run, format)
    if format is Format.table:
        show_verdict(run.to_dict()["verdict"])
    for check in run.checks:
        log.info("%-4s %s: %s", check.state, check.name, check.detail)
    for note in matrix.notes() if (matrix := run.winner_matrix) else ():
        log.info("winners: %s", note)
    for note in run.notes:
        log.warning("note: %s", note)
    log.info("report: %s", run.to_dict()["report"])
    if not report_only:
        run.raise_for_checks()
