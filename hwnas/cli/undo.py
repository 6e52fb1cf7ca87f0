"""`hwnas undo`: reverts the last change of a run folder's settings."""

from __future__ import annotations

import typer

import hwnas
from hwnas.cli.options import FormatOption, RunArgument
from hwnas.cli.output import Format
from hwnas.cli.shared import show

__all__ = ["register"]


def register(parent: typer.Typer) -> None:
    """Adds the verb to the command line."""
    parent.command()(undo)


def undo(folder: RunArgument, format: FormatOption = Format.table) -> None:
    """Restore the settings and finished stages from before the last change of settings.

    Repeat it to undo the change before that. To redo, give the settings again.
    """
    show(hwnas.undo(folder), format)
