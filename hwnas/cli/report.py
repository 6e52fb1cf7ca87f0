"""`hwnas report`: writes the results of a run folder to one HTML file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import hwnas
from hwnas.cli.options import RunArgument, SearchOption

__all__ = ["register"]


def register(parent: typer.Typer) -> None:
    """Adds the verb to the command line."""
    parent.command()(report)


def report(
    folder: RunArgument,
    search: SearchOption = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write [report.html in the run folder].")
    ] = None,
) -> None:
    """Write report.html with the results so far."""
    sys.stdout.write(f"{hwnas.report(folder, search=search, out=out)}\n")
