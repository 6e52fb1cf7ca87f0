"""`hwnas check`: whether files of a run folder were damaged or altered."""

from __future__ import annotations

import typer

import hwnas
from hwnas.cli.options import FormatOption, RunArgument
from hwnas.cli.output import Format
from hwnas.cli.shared import show
from hwnas.core.errors import CheckFailed

__all__ = ["register"]


def register(parent: typer.Typer) -> None:
    """Add the verb to the command line."""
    parent.command()(check)


def check(folder: RunArgument, format: FormatOption = Format.table) -> None:
    """Compare every file with the hash it was written with; exit 3 if one is damaged.

    `hwnas run` makes again what results depend on.
    """
    found = hwnas.check(folder)
    show(found, format)
    if len(found):
        raise CheckFailed(
            "files of the run folder are damaged",
            found=len(found),
            where=folder,
            fix=str(found.facts["fix"]),
        )
