"""`hwnas prune`: second training rounds, in the pruned and in the whole space."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

import hwnas
from hwnas.cli.options import FormatOption, RunArgument, TruthOption
from hwnas.cli.output import Format, progress_for
from hwnas.cli.shared import say_time, show

if TYPE_CHECKING:
    from hwnas.api.prune import PrunedTraining

__all__ = ["register"]


def register(parent: typer.Typer) -> None:
    """Adds the verb to the command line."""
    parent.command("prune")(prune)


def prune(
    folder: RunArgument,
    ranking: Annotated[
        str, typer.Option(help="Ranking for the pruning: predictor, supernet, macs or params.")
    ] = "predictor",
    truth: TruthOption = None,
    fraction: Annotated[
        float | None,
        typer.Option(help="Share of archs to remove from the space [the largest that is safe]."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps of each round [as in RUN].")
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh", help="Start both rounds from random weights instead of those of RUN."
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the values that would be dropped and the cost, then stop."
        ),
    ] = False,
    format: FormatOption = Format.table,
) -> None:
    """Prune the space by a ranking, then train one round in it and one in the whole space.

    Both rounds cost the same. They are the run folders RUN/rounds/pruned and RUN/rounds/unpruned,
    which other verbs can use.
    """
    if dry_run:
        from hwnas.api.prune import prune_plan

        planned = prune_plan(
            folder, ranking=ranking, truth=truth or (), fraction=fraction, steps=steps
        )
        show(planned, format)
        say_time(planned)
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
        _say_gain(found)


def _say_gain(found: PrunedTraining) -> None:
    """Prints the gain of the pruning as a sentence."""
    compared, (low, high) = found.compared, found.compared.gain_interval
    sys.stdout.write(
        f"Pruned {found.pruning.size_before:,} -> {found.pruning.size_after:,} archs. The same "
        f"{compared.n_common} archs score {100 * compared.gain:+.2f} points of top-1 "
        f"({100 * low:+.2f} to {100 * high:+.2f}) with the supernet of the pruned space (90 % "
        "interval over archs).\n"
    )
