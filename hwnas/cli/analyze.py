"""`hwnas analyze`: when to trust a ranking."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli.options import FormatOption
from hwnas.cli.output import Format, emit, progress_for

__all__ = ["register"]


def register(parent: typer.Typer) -> None:
    """Add the verb to the command line."""
    parent.command("analyze")(analyze)


def analyze(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="Run folder, or give --records.")
    ] = None,
    records: Annotated[
        Path | None, typer.Option(help="File of labelled archs, in place of a run folder.")
    ] = None,
    reader: Annotated[str | None, typer.Option(help="Format of --records [guessed].")] = None,
    target: Annotated[str | None, typer.Option(help="Column of --records: the truth.")] = None,
    ranking: Annotated[
        str | None,
        typer.Option(
            help="predictor, supernet, macs, params, or a column of --records"
            " [predictor; of --records: macs]."
        ),
    ] = None,
    truth: Annotated[
        list[Path] | None,
        typer.Option(
            help="Better labels of the same archs [those trained alone, for --ranking supernet;"
            " else the supernet's]; again per seed."
        ),
    ] = None,
    table: Annotated[
        list[str] | None,
        typer.Option(help="With --records: a latency table, for the bias towards slow archs."),
    ] = None,
    prune: Annotated[
        Path | None, typer.Option(help="Write the pruned space's `restrict:` section here.")
    ] = None,
    prune_fraction: Annotated[
        float | None, typer.Option(help="Archs to lose [the most that is safe].")
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Rank agreement, precision at the top, safety of pruning, bias per choice, and a verdict."""
    import sys

    from hwnas.core.errors import UserError
    from hwnas.core.records import dump
    from hwnas.pipeline.project import open_project
    from hwnas.studies import rank_analysis as analyzing

    if (folder is None) == (records is None):
        raise UserError("what to analyze?", expected="a run folder, or --records FILE")
    if records is not None:
        found, pair = analyzing.analyze_records(
            records, ranking or "macs", target=target, tables=table or (), reader=reader
        )
    else:
        assert folder is not None
        with open_project(
            folder, progress_for=progress_for, command="hwnas analyze", read_only=True
        ) as project:
            found, pair = analyzing.analyze_run(project, ranking or "predictor", truth or ())
    pruning = None
    if prune is not None or prune_fraction is not None:
        pruning = analyzing.prune(found, pair, prune_fraction)
        if prune is not None:
            analyzing.write_pruned(prune, pruning)
    rows = [
        {
            "among true top": f"{part.top_fraction:.0%}",
            "n": part.n,
            "kendall_tau": part.kendall_tau.value,
            "low": part.kendall_tau.low,
            "high": part.kendall_tau.high,
            "spearman": part.spearman.value,
            "pearson": part.pearson.value,
        }
        for part in found.ranks.correlations
    ]
    emit(
        rows,
        format=format,
        title=f"{found.ranking} against {found.truth}",
        **dump(found, versioned=False),
        pruning=None if pruning is None else dump(pruning, versioned=False),
    )
    if format is Format.table:
        sentences = list(found.verdict)
        if pruning is not None:
            sentences.append(
                f"Pruned: {pruning.size_after:,} of {pruning.size_before:,} archs are left, with "
                f"{pruning.kept_of_top or 0:.0%} of the true top 10 %; "
                f"{len(pruning.dropped)} values dropped."
            )
        sys.stdout.write("".join(f"{sentence}\n" for sentence in sentences))
