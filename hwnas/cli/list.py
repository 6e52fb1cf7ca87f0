"""`hwnas list`: installed variants, and the packages that other variants need."""

from __future__ import annotations

from typing import Annotated

import typer

import hwnas
from hwnas.api.list import Kind
from hwnas.cli.options import FormatOption
from hwnas.cli.output import Format
from hwnas.cli.shared import show

__all__ = ["register"]


def register(parent: typer.Typer) -> None:
    """Adds the verb to the command line."""
    parent.command("list")(list_kind)


def list_kind(
    kind: Annotated[
        Kind, typer.Argument(help="What to list: a kind of variants, or of shipped files.")
    ],
    format: FormatOption = Format.table,
) -> None:
    """List the variants of a kind. Example: `hwnas list searchers`."""
    show(hwnas.list(kind), format)
