"""`hwnas finetune`: fine-tunes the winner and its baselines."""

from __future__ import annotations

import typer

import hwnas
from hwnas.cli.options import (
    ConfigOption,
    DryRunOption,
    FormatOption,
    RunArgument,
    SearchOption,
    SetOption,
)
from hwnas.cli.output import Format, progress_for
from hwnas.cli.shared import show, show_plan
from hwnas.core.overrides import assignments

__all__ = ["register"]


def register(parent: typer.Typer) -> None:
    """Adds the verb to the command line."""
    parent.command()(finetune)


def finetune(
    folder: RunArgument,
    config: ConfigOption = None,
    search: SearchOption = None,
    settings: SetOption = None,
    format: FormatOption = Format.table,
    dry_run: DryRunOption = False,
) -> None:
    """Fine-tune the winner and the baselines.

    Example: `hwnas finetune runs/quickstart --config quickstart --dry-run`.
    """
    changes = assignments(settings or ())
    if dry_run:
        from hwnas.api.stage import of_known_search

        planned = of_known_search(folder, search, changes)
        show_plan(folder, format, config=config, settings=planned, only="finetune")
        return
    found = hwnas.finetune(
        folder, config=config, search=search, settings=changes, progress=progress_for
    )
    show(found, format)
