"""`hwnas list`: the installed variants, and the packages that others need."""

from __future__ import annotations

import typer

import hwnas
from hwnas.api.list import Kind
from hwnas.cli.options import FormatOption
from hwnas.cli.output import Format
from hwnas.cli.shared import show

__all__ = ["register"]


def register(parent: typer.Typer) -> None:
    """Add the verb to the command line."""
    parent.command("list")(list_kind)


def list_kind(kind: Kind, format: FormatOption = Format.table) -> None:
    """What can be chosen. Example: `hwnas list searchers`."""
    show(hwnas.list(kind), format)
