"""`hwnas table`: shows, checks, converts and transfers latency tables."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import hwnas
from hwnas.cli.options import (
    ARCH_FORMS,
    ClassesOption,
    ClassesTimedOption,
    DryRunOption,
    FormatOption,
    SpaceSettings,
)
from hwnas.cli.output import Format, emit, progress_for
from hwnas.cli.profile import (
    DeviceArgument,
    ProfileSettings,
    ResolutionsOption,
    SeedOption,
    SpaceOption,
    job,
)
from hwnas.cli.scatter import scatter
from hwnas.cli.shared import say_time, show_table, sizes
from hwnas.cli.shared import show as show_result
from hwnas.core.overrides import assignments

__all__ = ["register"]

app = typer.Typer(
    help="Show, check and convert latency tables.", no_args_is_help=True, rich_markup_mode=None
)

TableArgument = Annotated[
    str,
    typer.Argument(metavar="TABLE", help="A name from `hwnas table list`, or a .json file."),
]


def register(parent: typer.Typer) -> None:
    """Adds the verb to the command line."""
    parent.add_typer(app, name="table")


@app.command("list")
def list_tables(
    run: Annotated[
        Path | None,
        typer.Option("--run", readable=False, help="Also list the tables of a run folder."),
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """List the shipped tables, and those of a run folder, with their provenance.

    `provenance`: measured here (a run or a file of yours) or on another machine, published, fitted
    to published networks, or transferred from other tables.

    Example: `hwnas table list --format json`.
    """
    show_result(hwnas.table_list(run=run), format)


@app.command()
def show(table: TableArgument, format: FormatOption = Format.table) -> None:
    """Show a table, the spaces that it covers, and the quality of its estimates."""
    found = hwnas.latency_table(table)
    shown = hwnas.table_show(found)
    show_result(shown, format)
    if format is Format.table:
        if served := shown.facts["serves"]:
            title = "spaces whose operators the table has, with any number of classes"
            emit(list(map(_served_row, served)), format=format, title=title)
        else:
            sys.stdout.write("the table lacks operators of every registered space\n")
        for space, correction in sorted(found.corrections.items()):
            nets = correction.validation.nets
            forecast, measured = [n.forecast_ms for n in nets], [n.measured_ms for n in nets]
            drawn = scatter(measured, forecast, x_name="measured ms", y_name="estimate ms")
            sys.stdout.write(f"\n{space}, estimates of held-out networks\n{drawn}")
    for warning in found.warnings:
        logging.getLogger("hwnas.cli").warning("%s", warning)


def _served_row(row: dict[str, Any]) -> dict[str, Any]:
    low, high = ("unknown" if end is None else f"{end:.1%}" for end in row["interval"])
    return {
        "space": row["space"],
        "settings": row["settings"],
        "correction": row["correction"] or "none: sums of rows",
        "90 % interval, +-": low if low == high else f"{low} to {high}",
    }


@app.command()
def estimate(
    table: TableArgument,
    space: Annotated[
        str, typer.Option("--space", help="A name from `hwnas space list`, or a YAML file.")
    ],
    arch: Annotated[
        list[str] | None,
        typer.Option(
            "--arch",
            help=f"An arch: {ARCH_FORMS}; may be repeated [largest and smallest].",
        ),
    ] = None,
    resolutions: ResolutionsOption = None,
    settings: SpaceSettings = None,
    num_classes: ClassesTimedOption = None,
    format: FormatOption = Format.table,
) -> None:
    """Estimate latencies with 90 % intervals; the space can differ from the profiled space.

    Example: `hwnas table estimate amd-epyc-2vcpu-mobilenet_v3 --space mobilenet_v3 --resolutions
    160 --num-classes 10`.
    """
    found = hwnas.table_estimate(
        table,
        space=space,
        arch=arch or (),
        resolutions=sizes(resolutions),
        settings=assignments(settings or ()),
        num_classes=num_classes,
    )
    show_result(found, format)


@app.command()
def validate(
    table: TableArgument,
    max_mape: Annotated[
        float, typer.Option(help="Maximum mean relative error on held-out networks.")
    ] = 0.05,
    max_p95: Annotated[
        float | None, typer.Option(help="Maximum 95th percentile of the relative errors.")
    ] = None,
    min_tau: Annotated[
        float | None, typer.Option(help="Minimum Kendall's tau of estimates and timings.")
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Exit 3 if the errors of a table on held-out networks are above a threshold."""
    show_table(hwnas.latency_table(table), format)
    hwnas.table_validate(table, max_mape=max_mape, max_p95=max_p95, min_tau=min_tau)


@app.command()
def fit(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", readable=False, help="Run folder that has timings of the device."
        ),
    ],
    device: Annotated[str, typer.Option("--device", help="Device of the table.")] = "local",
    format: FormatOption = Format.table,
) -> None:
    """Rebuild the table of a run from its stored timings, without timing again."""
    show_table(hwnas.table_fit(run, device=device, progress=progress_for), format)


@app.command()
def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT",
            help="Source of the latencies: accel_nasbench, hw_nasbench201, help (the data set"
            " HELP), ofa_i7, pixel1 or tfnas.",
        ),
    ],
    path: Annotated[Path, typer.Argument(help="The published file or folder.")],
    out: Annotated[Path, typer.Option("--out", help="Table to write.")],
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            help="With the formats accel_nasbench, help and hw_nasbench201: device whose"
            " latencies are read, e.g. gold_6240.",
        ),
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Make a table from published latencies; rows are fitted if only whole networks were timed.

    For example the Pixel 1 table of ProxylessNAS: `table convert pixel1 pixel_trim.yaml --out
    FILE`.
    """
    show_table(hwnas.table_convert(source, path, out=out, device=device), format, path=out)


@app.command()
def diff(first: TableArgument, second: TableArgument, format: FormatOption = Format.table) -> None:
    """Compare two tables on their common operators."""
    show_result(hwnas.table_diff(first, second), format)


@app.command()
def merge(
    tables: Annotated[list[str], typer.Argument(metavar="TABLE...", help="At least two tables.")],
    out: Annotated[Path, typer.Option("--out", help="Table to write.")],
    format: FormatOption = Format.table,
) -> None:
    """Merge the rows and corrections of tables; earlier tables have priority.

    Device, precision, batch, threads, runtime version and protocol of the tables must be equal.
    """
    show_table(hwnas.table_merge(tables, out=out), format, path=out)


@app.command()
def transfer(
    device: DeviceArgument,
    known: Annotated[
        list[str],
        typer.Option(
            "--from",
            metavar="TABLE",
            help="Table of another device, from which the new table is derived; may be repeated.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Table to write.")],
    space: SpaceOption = None,
    resolutions: ResolutionsOption = None,
    settings: SpaceSettings = None,
    num_classes: ClassesOption = None,
    profile_settings: ProfileSettings = None,
    n: Annotated[int, typer.Option("--n", min=5, help="Number of whole networks to time.")] = 10,
    seed: SeedOption = 0,
    format: FormatOption = Format.table,
    dry_run: DryRunOption = False,
) -> None:
    """Make a table for a new device from tables of other devices and a few timed networks.

    The known tables determine the networks to time; `--dry-run` shows them.
    """
    asked = job(space, resolutions, settings, num_classes, profile_settings)
    if dry_run:
        from hwnas.api.table import transfer_plan

        planned = transfer_plan(
            device,
            known=known,
            **asked,
            n=n,
            seed=seed,
        )
        show_result(planned, format)
        say_time(planned)
        return
    made = hwnas.table_transfer(
        device,
        known=known,
        out=out,
        **asked,
        n=n,
        seed=seed,
        progress=progress_for,
    )
    show_table(made, format, path=out)
