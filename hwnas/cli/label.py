"""`hwnas label`: scores of random subnets."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

import hwnas
from hwnas.cli.options import ConfigOption, DryRunOption, FormatOption, RunArgument, SetOption
from hwnas.cli.output import Format, progress_for
from hwnas.cli.shared import show, show_plan
from hwnas.core.overrides import assignments

__all__ = ["register"]


def register(parent: typer.Typer) -> None:
    """Adds the verb to the command line."""
    parent.command()(label)


def label(
    folder: RunArgument,
    config: ConfigOption = None,
    source: Annotated[
        Literal["supernet", "trained"],
        typer.Option(
            help="Weights to score archs with: `supernet`, the shared weights; or `trained`, the"
            " weights of a stand-alone training of each arch."
        ),
    ] = "supernet",
    n: Annotated[
        int | None,
        typer.Option("--n", min=1, help="Number of archs that get a label [as configured]."),
    ] = None,
    settings: SetOption = None,
    format: FormatOption = Format.table,
    dry_run: DryRunOption = False,
) -> None:
    """Score random subnets with the supernet's weights, or train them stand-alone.

    Example: `hwnas label runs/quickstart --config quickstart --source trained --n 20 --dry-run`.
    """
    changes = assignments(settings or ())
    if dry_run:
        from hwnas.api.label import label_changes, log_trained_cost

        stage, planned = label_changes(source, n, changes)
        show_plan(folder, format, config=config, settings=planned, only=stage)
        if source == "trained":
            log_trained_cost(folder, config=config, settings=planned)
        return
    found = hwnas.label(
        folder, config=config, source=source, n=n, settings=changes, progress=progress_for
    )
    show(found, format)
