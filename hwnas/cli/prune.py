"""`hwnas prune`: a second training round in the pruned space, beside one in the whole space."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli.options import FormatOption, RunArgument
from hwnas.cli.output import Format, emit, progress_for

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
            help="Better labels of the same archs [those trained alone, for --ranking supernet]."
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
    import sys

    from hwnas.core.records import dump
    from hwnas.pipeline.project import open_project
    from hwnas.studies import rank_analysis as analyzing
    from hwnas.studies.pruned_training import train_rounds

    with open_project(
        folder, progress_for=progress_for, command="hwnas prune", read_only=True
    ) as project:
        found, pair = analyzing.analyze_run(project, ranking, truth or ())
        pruning = analyzing.prune(found, pair, fraction)
        if dry_run:
            rows = [dump(value, versioned=False) for value in pruning.dropped]
            emit(rows, format=format, pruning=dump(pruning, versioned=False))
            return
        compared = train_rounds(
            project, pruning.restrict, steps=steps, is_fresh=fresh, progress_for=progress_for
        )
    emit(
        [dump(one, versioned=False) for one in (compared.pruned, compared.unpruned)],
        format=format,
        title=f"pruned by {found.ranking}",
        gain=compared.gain,
        gain_interval=compared.gain_interval,
        n_common=compared.n_common,
        pruning=dump(pruning, versioned=False),
    )
    if format is Format.table:
        low, high = compared.gain_interval
        sys.stdout.write(
            f"Pruned {pruning.size_before:,} -> {pruning.size_after:,} archs. The same "
            f"{compared.n_common} archs score {compared.gain:+.4f} top1 [{low:+.4f}, {high:+.4f}] "
            "with the supernet of the pruned space (90 % interval over archs).\n"
        )
