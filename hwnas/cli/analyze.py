"""`hwnas analyze`: when to trust a ranking."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli.options import FormatOption, RunArgument
from hwnas.cli.output import Format, emit, progress_for

__all__ = ["register"]


class Ranking(str, Enum):
    """What ranked the archs."""

    predictor = "predictor"
    supernet = "supernet"
    macs = "macs"
    params = "params"


def register(parent: typer.Typer) -> None:
    """Add the verb to the command line."""
    parent.command("analyze")(analyze)


def analyze(
    folder: RunArgument,
    ranking: Annotated[Ranking, typer.Option(help="The ranking in question.")] = Ranking.predictor,
    truth: Annotated[
        Path | None, typer.Option(help="Better labels of the same archs [supernet labels].")
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Rank agreement, precision at the top, safety of pruning, bias per choice, and a verdict."""
    import sys

    from hwnas.core.records import dump
    from hwnas.pipeline.analyzing import analyze as compare
    from hwnas.pipeline.project import open_project

    with open_project(
        folder, progress_for=progress_for, command="hwnas analyze", read_only=True
    ) as project:
        found = compare(project, ranking.value, truth)
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
    )
    if format is Format.table:
        sys.stdout.write("".join(f"{sentence}\n" for sentence in found.verdict))
