"""`hwnas check`: finds damaged or altered files of a run folder."""

from __future__ import annotations

import typer

import hwnas
from hwnas.cli.options import FormatOption, RunArgument
from hwnas.cli.output import Format
from hwnas.cli.shared import show
from hwnas.core.errors import CheckFailed

__all__ = ["register"]


def register(parent: typer.Typer) -> None:
    """Adds the verb to the command line."""
    parent.command()(check)


def check(folder: RunArgument, format: FormatOption = Format.table) -> None:
    """Compare every file with its recorded hash; exit 3 if one is damaged.

    `hwnas run` rebuilds damaged files on which results depend.
    """
    found = hwnas.check(folder)
    show(found, format)
    if len(found):
        raise CheckFailed(
            "files of the run folder are damaged",
            found=f"{len(found):,} damaged or missing files",
            where=folder,
            fix=str(found.facts["fix"]),
        )
