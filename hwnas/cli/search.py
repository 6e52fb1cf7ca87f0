"""`hwnas search`: the best archs of a run under its constraints."""

from __future__ import annotations

from typing import Annotated

import typer

import hwnas
from hwnas.cli.options import ConfigOption, DryRunOption, FormatOption, RunArgument, SetOption
from hwnas.cli.output import Format, progress_for
from hwnas.cli.shared import names, show, show_plan, show_verdict
from hwnas.core.overrides import assignments

__all__ = ["register"]


def register(parent: typer.Typer) -> None:
    """Adds the verb to the command line."""
    parent.command()(search)


def search(
    folder: RunArgument,
    config: ConfigOption = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of an existing or new search [the last search]."),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated devices that each get a front and a winner [as configured]."
        ),
    ] = None,
    settings: SetOption = None,
    format: FormatOption = Format.table,
    dry_run: DryRunOption = False,
) -> None:
    """Find the best archs under the constraints; run random search for comparison.

    Example: `hwnas search runs/quickstart --config quickstart --dry-run`.
    """
    changes = assignments(settings or ())
    if dry_run:
        from hwnas.api.search import search_changes

        planned = search_changes(names(devices), changes, name)
        show_plan(folder, format, config=config, settings=planned, only="search")
        return
    found = hwnas.search(
        folder,
        config=config,
        name=name,
        devices=names(devices),
        settings=changes,
        progress=progress_for,
    )
    show(found, format)
    if format is Format.table:
        show_verdict(found.facts["verdict"])
