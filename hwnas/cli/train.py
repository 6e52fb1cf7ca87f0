"""`hwnas train`: trains the supernet."""

from __future__ import annotations

from typing import Annotated

import typer

import hwnas
from hwnas.api.options import refuse_unused
from hwnas.cli.options import ConfigOption, DryRunOption, FormatOption, RunArgument, SetOption
from hwnas.cli.output import Format, progress_for
from hwnas.cli.shared import show, show_plan
from hwnas.core.overrides import assignments

__all__ = ["register"]


def register(parent: typer.Typer) -> None:
    """Adds the verb to the command line."""
    parent.command()(train)


def train(
    folder: RunArgument,
    config: ConfigOption = None,
    settings: SetOption = None,
    format: FormatOption = Format.table,
    dry_run: DryRunOption = False,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With --dry-run: number of processes to plan for [those of torchrun, or 1].",
        ),
    ] = None,
) -> None:
    """Train the supernet.

    A dry run times real steps on synthetic images, and estimates time and memory of the training.

    Example: `hwnas train runs/quickstart --config quickstart --dry-run`.
    """
    changes = assignments(settings or ())
    if not dry_run:
        refuse_unused(
            {"--processes": processes},
            to="training without --dry-run",
            fix="add --dry-run; to train with several processes, use torchrun",
        )
    if dry_run:
        from hwnas.api.train import log_training_cost

        show_plan(folder, format, config=config, settings=changes, only="train")
        log_training_cost(folder, config=config, settings=changes, processes=processes)
        return
    show(hwnas.train(folder, config=config, settings=changes, progress=progress_for), format)
