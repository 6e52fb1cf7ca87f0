"""`hwnas data`: reports on folders of photos."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

import hwnas
from hwnas.cli.options import FormatOption, SetOption, config_names
from hwnas.cli.output import Format
from hwnas.cli.shared import show as show_result
from hwnas.core.overrides import assignments

__all__ = ["register"]

app = typer.Typer(help="Check folders of photos.", no_args_is_help=True, rich_markup_mode=None)
log = logging.getLogger("hwnas.cli")


def register(parent: typer.Typer) -> None:
    """Add the verb to the command line."""
    parent.add_typer(app, name="data")


@app.callback()
def _group() -> None:
    """Check folders of photos."""


@app.command()
def show(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            readable=False,
            help="Folder with a subfolder per class, or a run folder.",
        ),
    ],
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            autocompletion=config_names,
            help="Configuration with the data settings [photos].",
        ),
    ] = None,
    settings: SetOption = None,
    format: FormatOption = Format.table,
) -> None:
    """Show photos per class and split: found, used, left out and why, and possible problems.

    Example: `hwnas data show my_photos`.
    """
    found = hwnas.data_show(folder, config=config, settings=assignments(settings or ()))
    show_result(found, format)
    for text in found.facts["doubts"]:
        log.warning("note: %s", text)
    for text in found.facts["refused"]:
        log.warning("training would fail: %s", text)
