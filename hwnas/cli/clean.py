"""`hwnas clean`: lists and removes files that hwnas makes again when it needs them."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

import hwnas
from hwnas.cli.options import DryRunOption, FormatOption
from hwnas.cli.output import Format
from hwnas.cli.shared import show

__all__ = ["register"]

log = logging.getLogger("hwnas.cli")


def register(parent: typer.Typer) -> None:
    """Add the verb to the command line."""
    parent.command()(clean)


def clean(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN]",
            readable=False,
            help="Run folder, or the folder TABLE.samples that `hwnas profile` made"
            " [without --device: the caches in ~/.cache/hwnas].",
        ),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option("--device", help="Also kits on this device; may be repeated."),
    ] = None,
    with_undo: Annotated[
        bool, typer.Option("--with-undo", help="Also files that `hwnas undo` would restore.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    format: FormatOption = Format.table,
    dry_run: DryRunOption = False,
) -> None:
    """List files that can be removed, and remove them after a confirmation.

    These are superseded files of a run, models that were timed, kits on boards (`--device
    my_board.yaml`) and cached images. hwnas makes them again when it needs them. Results stay.
    """
    if yes and not dry_run:
        show(hwnas.clean(folder, device=device or (), with_undo=with_undo, yes=True), format)
        return
    found = hwnas.clean(folder, device=device or (), with_undo=with_undo)
    show(found, format)
    if dry_run or not found.facts["mb"]:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        log.info("nothing was removed; add --yes to remove these files")
        return
    if typer.confirm(f"Remove {found.facts['mb']:.1f} MB?", err=True):
        gone = hwnas.clean(folder, device=device or (), with_undo=with_undo, yes=True)
        log.info("removed: %.1f MB", gone.facts["mb"])
