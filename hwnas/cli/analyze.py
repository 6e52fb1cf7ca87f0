"""`hwnas analyze`: measures how reliable a ranking of archs is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import hwnas
from hwnas.cli.options import FormatOption, TruthOption
from hwnas.cli.output import Format
from hwnas.cli.shared import show

__all__ = ["register"]


def register(parent: typer.Typer) -> None:
    """Adds the verb to the command line."""
    parent.command("analyze")(analyze)


# long: its parameters are its options
def analyze(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN]", readable=False, help="Run folder, instead of --records."),
    ] = None,
    records: Annotated[
        Path | None, typer.Option(help="File of labelled archs, instead of a run folder.")
    ] = None,
    reader: Annotated[str | None, typer.Option(help="Format of --records [detected].")] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Column of --records by which the ranking is judged [the default of --reader]."
        ),
    ] = None,
    ranking: Annotated[
        str | None,
        typer.Option(
            help="Ranking to judge: predictor, supernet, macs, params, or a column of --records"
            " [predictor; macs for --records]."
        ),
    ] = None,
    truth: TruthOption = None,
    table: Annotated[
        list[str] | None,
        typer.Option(
            help="With --records: latency table of a device. The report then also shows how much"
            " the ranking favours archs that are slow on it. May be repeated."
        ),
    ] = None,
    prune: Annotated[
        Path | None,
        typer.Option(help="Write the section `restrict:` of the pruned space to this file."),
    ] = None,
    prune_fraction: Annotated[
        float | None,
        typer.Option(help="Share of archs to remove from the space [the largest that is safe]."),
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Measure how reliable a ranking of archs is: agreement, precision at the top, bias, pruning.

    For a run folder, also tests whether its winner is better than that of random search.
    """
    found = hwnas.analyze(
        folder,
        records=records,
        reader=reader,
        target=target,
        ranking=ranking,
        truth=truth or (),
        table=table or (),
        prune=prune,
        prune_fraction=prune_fraction,
    )
    show(found, format)
    if format is Format.table:
        sentences = [*found.verdict, *((str(found.winner),) if found.winner else ())]
        if (pruning := found.pruning) is not None:
            sentences.append(
                f"Pruned: {pruning.size_after:,} of {pruning.size_before:,} archs are left, with "
                f"{pruning.kept_of_top or 0:.0%} of the true top 10 %; "
                f"{len(pruning.dropped)} values dropped."
            )
        sys.stdout.write("".join(f"{sentence}\n" for sentence in sentences))
