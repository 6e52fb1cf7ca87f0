"""`hwnas doctor`: versions, optional packages, devices, caches, and what is slow here."""

from __future__ import annotations

import typer

import hwnas
from hwnas.cli.options import FormatOption
from hwnas.cli.output import Format
from hwnas.cli.shared import show
from hwnas.core.errors import CheckFailed

__all__ = ["register"]


def register(parent: typer.Typer) -> None:
    """Adds the verb to the command line."""
    parent.command()(doctor)


def doctor(format: FormatOption = Format.table) -> None:
    """Check the installation and this machine; exit 3 if something does not work.

    Versions, optional packages with the command that installs each, GPUs, processors, memory,
    caches, and what is slow here. Nothing is changed or sent. `--format json` is for bug reports.
    """
    found = hwnas.doctor()
    show(found, format)
    if problems := [row for row in found if row["state"] == "problem"]:
        raise CheckFailed(
            "the installation has problems",
            found="; ".join(f"{row['what']}: {row['found']}" for row in problems),
            fix="; ".join(str(row["fix"]) for row in problems if row["fix"]),
        )
