"""`hwnas predictor`: fit the accuracy predictor, question it, use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.cli.options import FormatOption, RunArgument
from hwnas.cli.output import Format, emit, progress_for
from hwnas.cli.stages import stage_verb

if TYPE_CHECKING:
    from hwnas.pipeline.project import Project

__all__ = ["register"]

app = typer.Typer(
    help="Fit and question the predictor.", no_args_is_help=True, rich_markup_mode=None
)


def register(parent: typer.Typer) -> None:
    """Add the verb to the command line."""
    parent.add_typer(app, name="predictor")


def _fit_rows(project: Project) -> Sequence[Mapping[str, Any]]:
    from hwnas.pipeline.predicting import read_blend, read_report

    report = read_report(project)
    low, high = report.kendall_tau_interval
    return [
        {
            "predictor": project.config.predictor.name,
            "n_fit": report.n_fit,
            "n_held_out": report.n_held_out,
            "kendall_tau": report.kendall_tau,
            "tau_low": low,
            "tau_high": high,
            "macs_tau": report.macs_tau,
            "coverage": report.coverage,
            "blend_weight": read_blend(project).weight,
        }
    ]


app.command("fit")(
    stage_verb(
        "predictor", "hwnas predictor fit", "Fit the predictor on a run's labels.", _fit_rows
    )
)


@app.command("eval")
def evaluate(
    folder: RunArgument,
    train_size: Annotated[int, typer.Option("--train-size", min=4, help="Labels to fit on.")] = 100,
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=100)] = 3,
    format: FormatOption = Format.table,
) -> None:
    """Every installed predictor on random splits of a run's labels: fit on N, rank all the rest."""
    from hwnas.pipeline.predicting import compare_predictors
    from hwnas.pipeline.project import open_project

    with open_project(
        folder, progress_for=progress_for, command="hwnas predictor eval", read_only=True
    ) as project:
        rows = compare_predictors(
            project, n_fit=train_size, n_seeds=seeds, progress=progress_for("predictor eval")
        )
        emit(rows, format=format)


@app.command("predict")
def predict(
    folder: RunArgument,
    archs: Annotated[
        list[str], typer.Argument(help="largest, smallest, codes 0,1,.., or .json files.")
    ],
    format: FormatOption = Format.table,
) -> None:
    """Forecast score, its deviation, and every price of some archs."""
    from hwnas.pipeline.predicting import load_predictor
    from hwnas.pipeline.project import open_project
    from hwnas.pipeline.searching import prices
    from hwnas.pipeline.spaces import read_arch

    with open_project(
        folder, progress_for=progress_for, command="hwnas predictor predict", read_only=True
    ) as project:
        members = [read_arch(project.space, text) for text in archs]
        codes = project.space.codes(members)
        mean, std = load_predictor(project).predict(codes)
        costs = {key: metric(codes) for key, metric in prices(project).items()}
        emit(
            [
                {
                    "arch": arch.key,
                    "score": float(mean[row]),
                    "std": float(std[row]),
                    **{key: float(cost[row]) for key, cost in costs.items()},
                }
                for row, arch in enumerate(members)
            ],
            format=format,
        )
