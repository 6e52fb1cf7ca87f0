"""`hwnas predictor`: fit the accuracy predictor, question it, use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.cli.options import FormatOption, RunArgument, SpaceSettings
from hwnas.cli.output import Format, emit, progress_for
from hwnas.cli.stages import stage_verb
from hwnas.core.config import assignments
from hwnas.core.errors import UserError
from hwnas.core.metrics import MetricKey

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
    report = project.files.predictor_report.read()
    low, high = report.kendall_tau_interval
    return [
        {
            "predictor": project.config.predictor.name,
            "labels": ", ".join(f"{n} {source}" for source, n in report.sources.items()),
            "n_fit": report.n_fit,
            "n_held_out": report.n_held_out,
            "kendall_tau": report.kendall_tau,
            "tau_low": low,
            "tau_high": high,
            "macs_tau": report.macs_tau,
            "coverage": report.coverage,
            "blend_weight": project.files.blend.read().weight,
        }
    ]


app.command("fit")(
    stage_verb(
        "predictor", "hwnas predictor fit", "Fit the predictor on a run's labels.", _fit_rows
    )
)


@app.command("eval")
def evaluate(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="Run folder, for its own labels.")
    ] = None,
    records: Annotated[
        Path | None, typer.Option("--records", help="A file of labelled archs instead.")
    ] = None,
    reader: Annotated[
        str | None, typer.Option("--reader", help="Its format; otherwise guessed from the file.")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", metavar="COLUMN", help="What to forecast.")
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option("--also", metavar="COLUMN", help="Cheaper labels of all archs to learn from."),
    ] = None,
    proxy: Annotated[
        list[str] | None,
        typer.Option("--proxy", metavar="COLUMN", help="A column to use as a feature."),
    ] = None,
    space: Annotated[
        str | None, typer.Option("--space", help="The archs' space, where the reader does not say.")
    ] = None,
    num_classes: Annotated[int | None, typer.Option("--num-classes", min=1)] = None,
    settings: SpaceSettings = None,
    predictor: Annotated[
        str, typer.Option("--predictor", help="See `hwnas list predictors`.")
    ] = "gcn",
    train_size: Annotated[int, typer.Option("--train-size", min=4, help="Labels to fit on.")] = 100,
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=100)] = 3,
    baselines: Annotated[bool, typer.Option(help="Measure the other predictors too.")] = True,
    format: FormatOption = Format.table,
) -> None:
    """Fit on N random labels and rank all others, beside every other predictor and plain costs."""
    from hwnas.pipeline.project import open_project
    from hwnas.studies.compare_predictors import compare, labels_of_file, labels_of_run

    if records is not None and folder is None:
        labels = labels_of_file(
            records,
            reader=reader,
            target=target,
            also=also or (),
            proxies=proxy or (),
            space=space,
            settings=assignments(settings or ()),
            num_classes=num_classes,
        )
    elif folder is not None and records is None:
        with open_project(
            folder, progress_for=progress_for, command="hwnas predictor eval", read_only=True
        ) as project:
            labels = labels_of_run(project)
    else:
        raise UserError("say what to evaluate on", expected="either RUN or --records FILE")
    rows = compare(
        labels,
        predictor,
        n_fit=train_size,
        n_seeds=seeds,
        has_baselines=baselines,
        progress=progress_for("predictor eval"),
    )
    first, *others = rows
    emit(
        rows,
        format=format,
        **first,
        baselines={row["predictor"]: row for row in others},
        n_fit=train_size,
        n_test=len(labels.codes) - train_size,
        n_seeds=seeds,
        sources={labels.target: train_size, **{o.source: len(o.codes) for o in labels.others}},
    )


@app.command("predict")
def predict(
    folder: RunArgument,
    archs: Annotated[
        list[str], typer.Argument(help="largest, smallest, codes 0,1,.., or .json files.")
    ],
    format: FormatOption = Format.table,
) -> None:
    """Forecast score, its deviation, and every price of some archs."""
    from hwnas.pipeline.costs import prices
    from hwnas.pipeline.predictor import load_predictor
    from hwnas.pipeline.project import open_project
    from hwnas.spaces.load import read_arch

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


@app.command("export-lut")
def export_lut(
    folder: RunArgument,
    out: Annotated[
        Path | None, typer.Option("--out", help="File [predictor/lut.safetensors of the run].")
    ] = None,
    restrict: Annotated[
        list[str] | None,
        typer.Option(
            "--restrict", metavar="CHOICE=[VALUES]", help="A part of the space; may be repeated."
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--base", help="Only archs like this one (see `predict`) but for --free."),
    ] = None,
    free: Annotated[
        list[str] | None,
        typer.Option("--free", metavar="PATTERN", help="E.g. 'stage2.*'; may be repeated."),
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Write the forecast of every arch of a (sub)space to a lookup table.

    On a run: `hwnas predictor export-lut runs/quickstart --base largest --free 'stage2.*'`.
    """
    from hwnas.pipeline.project import open_project
    from hwnas.spaces.load import read_arch
    from hwnas.studies.score_table import export

    with open_project(
        folder,
        progress_for=progress_for,
        command="hwnas predictor export-lut",
        read_only=out is not None,
    ) as project:
        path = out or project.files.score_table
        table = export(
            project,
            path,
            restrict=dict(_restriction(text) for text in restrict or ()),
            base=None if base is None else read_arch(project.space, base),
            free=free or (),
            progress=progress_for("export-lut"),
        )
        emit(
            [
                {
                    "table": str(path),
                    "archs": len(table.means),
                    "best score": float(table.means.max()),
                    "source": table.source,
                }
            ],
            format=format,
        )


@app.command("lookup")
def lookup(
    folder: RunArgument,
    table: Annotated[
        Path | None, typer.Option("--table", help="File [predictor/lut.safetensors of the run].")
    ] = None,
    limits: Annotated[
        list[str] | None,
        typer.Option(
            "--max", metavar="METRIC=VALUE", help="E.g. latency_ms@local=2.5; may be repeated."
        ),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, max=10_000)] = 5,
    format: FormatOption = Format.table,
) -> None:
    """The best archs of a lookup table under any limits; nothing is forecast again.

    On a run with a table: `hwnas predictor lookup runs/quickstart --max macs=1e6`.
    """
    from hwnas.pipeline.project import open_project
    from hwnas.studies.score_table import look_up

    with open_project(
        folder, progress_for=progress_for, command="hwnas predictor lookup", read_only=True
    ) as project:
        path = table or project.files.score_table
        found = look_up(project, path, dict(_limit(text) for text in limits or ()), k=top)
        emit(
            [
                {
                    "arch": ",".join(map(str, codes)),
                    "score": float(found.means[row]),
                    "std": float(found.stds[row]),
                    **{key: float(cost[row]) for key, cost in found.costs.items()},
                }
                for row, codes in enumerate(found.codes.tolist())
            ],
            format=format,
            title=f"{found.n_feasible:,} of {found.n:,} archs keep the limits",
            n_feasible=found.n_feasible,
            n=found.n,
        )


def _limit(text: str) -> tuple[str, float]:
    key, _, value = text.partition("=")
    try:
        return MetricKey.parse(key), float(value)
    except ValueError as error:
        raise UserError(
            "cannot read the limit", expected="METRIC=VALUE, e.g. macs=5e6", found=text
        ) from error


def _restriction(text: str) -> tuple[str, list[Any]]:
    import yaml

    name, _, given = text.partition("=")
    try:
        values = yaml.safe_load(given)
    except yaml.YAMLError:
        values = None
    if values is None:
        raise UserError("cannot read the restriction", expected="CHOICE=[VALUES]", found=text)
    return name, values if isinstance(values, list) else [values]
