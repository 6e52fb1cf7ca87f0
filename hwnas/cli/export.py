"""`hwnas export`: deployable files of the fine-tuned networks."""

from __future__ import annotations

from typing import Annotated

import typer

import hwnas
from hwnas.api.options import refuse_unused
from hwnas.cli.options import (
    ConfigOption,
    DryRunOption,
    FormatOption,
    RunArgument,
    SearchOption,
    SetOption,
)
from hwnas.cli.output import Format, progress_for
from hwnas.cli.shared import show, show_planned
from hwnas.core.overrides import assignments

__all__ = ["register"]


def register(parent: typer.Typer) -> None:
    """Adds the verb to the command line."""
    parent.command()(export)


def export(
    folder: RunArgument,
    config: ConfigOption = None,
    search: SearchOption = None,
    formats: Annotated[
        str | None,
        typer.Option(
            help="Names of formats, separated by commas, e.g. onnx,onnx:int8,timm; or `all`"
            " [the formats of the configuration]."
        ),
    ] = None,
    settings: SetOption = None,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Download what a format needs (web: LiteRT.js).")
    ] = False,
    format: FormatOption = Format.table,
    dry_run: DryRunOption = False,
) -> None:
    """Export the fine-tuned networks and check their parity.

    `hwnas list exporters` lists the formats. `hwnas verify RUN` then writes the bundle. `--formats
    all` exports every format that is installed and measures the winner's files in one table.

    Example: `hwnas export runs/quickstart --config quickstart --formats onnx,int8 --dry-run`.
    """
    changes = assignments(settings or ())
    given = None if formats is None else formats.split(",")  # an empty name is an error
    if dry_run:
        refuse_unused({"--fetch": fetch}, to="a dry run", fix="leave it out")
        from hwnas.api.export import export_plan

        planned = export_plan(folder, config=config, search=search, formats=given, settings=changes)
        show_planned(planned, format)
        return
    found = hwnas.export(
        folder,
        config=config,
        search=search,
        formats=given,
        settings=changes,
        fetch=fetch,
        progress=progress_for,
    )
    show(found, format)
