"""`hwnas predictor`: fit, evaluate and use the accuracy predictor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import hwnas
from hwnas.cli.options import (
    ARCH_FORMS,
    ConfigOption,
    DryRunOption,
    FormatOption,
    RunArgument,
    SetOption,
    SpaceSettings,
)
from hwnas.cli.output import Format, progress_for
from hwnas.cli.shared import show, show_plan
from hwnas.core.errors import UserError
from hwnas.core.metrics import MetricKey
from hwnas.core.overrides import assignments

__all__ = ["register"]

ClassesOfSpace = Annotated[
    int | None, typer.Option("--num-classes", min=1, help="Number of classes of --space.")
]
app = typer.Typer(help="Fit and use the predictor.", no_args_is_help=True, rich_markup_mode=None)


def register(parent: typer.Typer) -> None:
    """Adds the verb to the command line."""
    parent.add_typer(app, name="predictor")


@app.command("fit")
def fit(
    folder: RunArgument,
    config: ConfigOption = None,
    settings: SetOption = None,
    format: FormatOption = Format.table,
    dry_run: DryRunOption = False,
) -> None:
    """Fit the predictor on a run's labels.

    Example: `hwnas predictor fit runs/quickstart --config quickstart --dry-run`.
    """
    changes = assignments(settings or ())
    if dry_run:
        show_plan(folder, format, config=config, settings=changes, only="predictor")
        return
    show(
        hwnas.predictor_fit(folder, config=config, settings=changes, progress=progress_for), format
    )


# long: its parameters are its options
@app.command("eval")
def evaluate(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN]", readable=False, help="Run folder, whose labels are used."),
    ] = None,
    records: Annotated[
        Path | None, typer.Option("--records", help="File of labelled archs, instead of RUN.")
    ] = None,
    reader: Annotated[
        str | None, typer.Option("--reader", help="Format of --records [detected].")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="COLUMN",
            help="Column of --records to predict [the default of --reader].",
        ),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--also",
            metavar="COLUMN",
            help="Column of --records with cheaper labels to learn from, too; may be repeated.",
        ),
    ] = None,
    proxy: Annotated[
        list[str] | None,
        typer.Option(
            "--proxy",
            metavar="COLUMN",
            help="Column of --records to use as a feature of archs; may be repeated.",
        ),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option("--space", help="Space of the archs, if the reader does not define it."),
    ] = None,
    num_classes: ClassesOfSpace = None,
    settings: SpaceSettings = None,
    predictor: Annotated[
        str, typer.Option("--predictor", help="Predictor to compare (`hwnas list predictors`).")
    ] = "gcn",
    train_size: Annotated[
        int, typer.Option("--train-size", min=4, help="Number of labels to fit on.")
    ] = 100,
    seeds: Annotated[
        int,
        typer.Option(
            "--seeds",
            min=1,
            max=100,
            help="Number of random splits into labels to fit on and the rest.",
        ),
    ] = 3,
    baselines: Annotated[bool, typer.Option(help="Evaluate the other predictors too.")] = True,
    format: FormatOption = Format.table,
) -> None:
    """Fit predictors on some random labels and rank the other archs; compare with costs."""
    found = hwnas.predictor_eval(
        folder,
        records=records,
        reader=reader,
        target=target,
        also=also or (),
        proxy=proxy or (),
        space=space,
        num_classes=num_classes,
        settings=assignments(settings or ()),
        predictor=predictor,
        train_size=train_size,
        seeds=seeds,
        baselines=baselines,
        progress=progress_for,
    )
    show(found, format)


@app.command("predict")
def predict(
    folder: RunArgument,
    archs: Annotated[
        list[str],
        typer.Argument(help=f"Archs, each as {ARCH_FORMS}."),
    ],
    format: FormatOption = Format.table,
) -> None:
    """Predict the score of some archs, with its standard deviation, and show their costs."""
    show(hwnas.predictor_predict(folder, archs), format)


@app.command("export-lut")
def export_lut(
    folder: RunArgument,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Lookup table to write [predictor/lut.safetensors of the run]."),
    ] = None,
    restrict: Annotated[
        list[str] | None,
        typer.Option(
            "--restrict",
            metavar="CHOICE=[VALUES]",
            help="Only these values of a choice [all values]; may be repeated.",
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            help="With --free: arch (largest, smallest, codes or a file) that fixes every choice"
            " that --free does not match [no choice is fixed].",
        ),
    ] = None,
    free: Annotated[
        list[str] | None,
        typer.Option(
            "--free",
            metavar="PATTERN",
            help="With --base: choices that take all their values, e.g. 'stage2.*'; may be"
            " repeated.",
        ),
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Write the prediction of every arch of a (sub)space to a lookup table.

    For a run: `hwnas predictor export-lut runs/quickstart --base largest --free 'stage2.*'`.
    """
    found = hwnas.predictor_export_lut(
        folder,
        out=out,
        restrict=dict(_restriction(text) for text in restrict or ()),
        base=base,
        free=free or (),
        progress=progress_for,
    )
    show(found, format)


@app.command("lookup")
def lookup(
    folder: RunArgument,
    table: Annotated[
        Path | None,
        typer.Option(
            "--table",
            help="Lookup table that `hwnas predictor export-lut` wrote [predictor/lut.safetensors"
            " of the run].",
        ),
    ] = None,
    limits: Annotated[
        list[str] | None,
        typer.Option(
            "--max",
            metavar="METRIC=VALUE",
            help="Upper limit of a metric, e.g. latency_ms@local=2.5; may be repeated.",
        ),
    ] = None,
    top: Annotated[
        int, typer.Option("--top", min=1, max=10_000, help="Number of archs to show.")
    ] = 5,
    format: FormatOption = Format.table,
) -> None:
    """Find the best archs of a lookup table within limits, without new predictions.

    For a run with a table: `hwnas predictor lookup runs/quickstart --max macs=1e6`.
    """
    bounds: dict[str, float] = {}
    for key, most in map(_limit, limits or ()):
        if key in bounds:
            raise UserError(
                f"two limits on {key}",
                expected="at most one limit per metric",
                found=f"{bounds[key]:g} and {most:g}",
                where="--max",
            )
        bounds[key] = most
    show(hwnas.predictor_lookup(folder, table=table, limits=bounds, top=top), format)


def _limit(text: str) -> tuple[str, float]:
    key, _, value = text.partition("=")
    try:
        return MetricKey.parse(key), float(value)
    except ValueError as error:
        raise UserError(
            "cannot read the limit",
            expected="METRIC=VALUE, e.g. macs=5e6",
            found=text,
            where="--max",
        ) from error


def _restriction(text: str) -> tuple[str, list[Any]]:
    import yaml

    name, _, given = text.partition("=")
    try:
        values = yaml.safe_load(given)
    except yaml.YAMLError:
        values = None
    if values is None:
        raise UserError(
            "cannot read the restriction",
            expected="CHOICE=[VALUES], e.g. resolution=[160,192]",
            found=text,
            where="--restrict",
        )
    return name, values if isinstance(values, list) else [values]
