"""`hwnas space`: shows search spaces."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import hwnas
from hwnas.cli.options import (
    ARCH_FORMS,
    ClassesOption,
    ClassesTimedOption,
    FormatOption,
    SpaceSettings,
)
from hwnas.cli.output import Format, emit
from hwnas.cli.shared import show as show_result
from hwnas.core.overrides import assignments

__all__ = ["register"]

app = typer.Typer(help="Show and check search spaces.", no_args_is_help=True, rich_markup_mode=None)

NameArgument = Annotated[
    str, typer.Argument(metavar="SPACE", help="A name from `hwnas space list`, or a YAML file.")
]


def register(parent: typer.Typer) -> None:
    """Adds the verb to the command line."""
    parent.add_typer(app, name="space")


@app.command("list")
def list_spaces(format: FormatOption = Format.table) -> None:
    """List registered spaces and those that ship as YAML files. Example: `hwnas space list`."""
    show_result(hwnas.space_list(), format)


@app.command()
def models(format: FormatOption = Format.table) -> None:
    """List networks whose subnets form a space `timm`. Example: `hwnas space models`."""
    show_result(hwnas.space_models(), format)


@app.command("from-timm")
def from_timm(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name from timm.list_models().")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The .yaml file to write, which defines the space.")
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Read any other network of timm; its subnets become a space.

    Example: `hwnas space from-timm tf_mobilenetv3_large_075 --out mine.yaml`.
    """
    show_result(hwnas.space_from_timm(model, out=out), format)


@app.command()
def show(
    name: NameArgument,
    table: Annotated[
        list[str] | None,
        typer.Option(
            "--table",
            metavar="TABLE",
            help="Also estimate latencies with this table (name or .json file); may be repeated.",
        ),
    ] = None,
    settings: SpaceSettings = None,
    num_classes: ClassesTimedOption = None,
    format: FormatOption = Format.table,
) -> None:
    """Show choices, size and cost range. Example: `hwnas space show mobilenet_tiny`."""
    found = hwnas.space_show(
        name, table=table or (), settings=assignments(settings or ()), num_classes=num_classes
    )
    show_result(found, format)
    if format is Format.table:
        ranges = [
            {"cost": cost, "smallest": f"{low:,}", "largest": f"{high:,}"}
            for cost, (low, high) in found.facts["costs"].items()
        ]
        emit(ranges, format=format, title=f"{found.facts['n_ops']:,} distinct operators")
        if latencies := found.facts["latencies"]:
            title = "estimated latencies that the space reaches"
            title += "" if num_classes else " (for another number of classes: --num-classes)"
            timed = [{"classes timed": ", ".join(map(str, r["classes timed"]))} for r in latencies]
            rows = [row | one for row, one in zip(latencies, timed, strict=True)]
            emit(rows, format=format, title=title)


@app.command()
def count(
    name: NameArgument, settings: SpaceSettings = None, format: FormatOption = Format.table
) -> None:
    """Count the archs exactly. Example: `hwnas space count mobilenet_tiny`."""
    show_result(hwnas.space_count(name, settings=assignments(settings or ())), format)


@app.command()
def sample(
    name: NameArgument,
    n: Annotated[
        int, typer.Option("-n", "--number", min=1, max=1_000_000, help="Number of archs.")
    ] = 5,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the sample.")] = 0,
    settings: SpaceSettings = None,
    num_classes: ClassesOption = None,
    format: FormatOption = Format.table,
) -> None:
    """Sample archs and show their costs. Example: `hwnas space sample mobilenet_tiny -n 3`."""
    found = hwnas.space_sample(
        name, n=n, seed=seed, settings=assignments(settings or ()), num_classes=num_classes
    )
    show_result(found, format)


@app.command()
def validate(
    name: NameArgument,
    arch: Annotated[
        str,
        typer.Argument(help=f"The arch to check: {ARCH_FORMS}."),
    ] = "largest",
    settings: SpaceSettings = None,
    num_classes: ClassesOption = None,
    format: FormatOption = Format.table,
) -> None:
    """Check an arch and print its operators.

    Example: `hwnas space validate mobilenet_tiny largest`.
    """
    changes = assignments(settings or ())
    found = hwnas.space_validate(name, arch, settings=changes, num_classes=num_classes)
    show_result(found, format)
    if format is Format.table and found.facts["notation"]:
        sys.stdout.write(f"{found.facts['notation']}\n")
