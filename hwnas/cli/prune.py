"""`hwnas prune`: a second training round in the pruned space, beside one in the whole space."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import hwnas
from hwnas.cli.options import FormatOption, RunArgument
from hwnas.cli.output import Format, progress_for
from hwnas.cli.shared import show

__all__ = ["register"]


def register(parent: typer.Typer) -> None:
    """Add the verb to the command line."""
    parent.command("prune")(prune)


def prune(
    folder: RunArgument,
    ranking: Annotated[
        str, typer.Option(help="predictor, supernet, macs or params: who says what is bad.")
    ] = "predictor",
    truth: Annotated[
        list[Path] | None,
        typer.Option(
            help="Better labels of the same archs [those trained stand-alone, for --ranking"
            " supernet]."
        ),
    ] = None,
    fraction: Annotated[
        float | None, typer.Option(help="Archs to lose [the most that is safe].")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps of each round [as the first].")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start both from random weights, not from RUN's.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would go, and stop there.")
    ] = False,
    format: FormatOption = Format.table,
) -> None:
    """Prune the space by a ranking, then train on in it and, at equal cost, in the whole space.

    The rounds are run folders, RUN/rounds/pruned and RUN/rounds/unpruned, which other verbs go on
    with.
    """
    if dry_run:
        from hwnas.api.prune import prune_plan

        planned = prune_plan(folder, ranking=ranking, truth=truth or (), fraction=fraction)
        show(planned, format)
        return
    found = hwnas.prune(
        folder,
        ranking=ranking,
        truth=truth or (),
        fraction=fraction,
        steps=steps,
        fresh=fresh,
        progress=progress_for,
    )
    show(found, format)
    if format is Format.table:
        compared, (low, high) = found.compared, found.compared.gain_interval
        sys.stdout.write(
            f"Pruned {found.pruning.size_before:,} -> {found.pruning.size_after:,} archs. The same "
            f"{compared.n_common} archs score {compared.gain:+.4f} top1 [{low:+.4f}, {high:+.4f}] "
            "with the supernet of the pruned space (90 % interval over archs).\n"
        )
