"""`hwnas status`: which stages of a run folder are done, and which would run."""

from __future__ import annotations

import logging

import typer

import hwnas
from hwnas.cli.options import FormatOption, RunArgument, SetOption
from hwnas.cli.output import Format
from hwnas.cli.shared import show_status
from hwnas.core.command import command_line
from hwnas.core.overrides import assignments

__all__ = ["register"]


def register(parent: typer.Typer) -> None:
    """Adds the verb to the command line."""
    parent.command()(status)


def status(
    folder: RunArgument, settings: SetOption = None, format: FormatOption = Format.table
) -> None:
    """Show which stages of a run folder are done, stale or missing."""
    from hwnas.pipeline.disk import disk_text

    found = hwnas.status(folder, settings=assignments(settings or ()))
    show_status(found, format)
    text = disk_text(found.facts["disk"], command_line("clean", folder))
    logging.getLogger("hwnas.cli").info("disk: %s", text)
