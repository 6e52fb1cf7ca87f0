"""`hwnas table`: look at latency tables, hold them to their promise, carry them over."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hwnas.cli.options import DryRunOption, FormatOption, SpaceSettings
from hwnas.cli.output import Format, emit, progress_for
from hwnas.cli.profile import (
    ClassesOption,
    DeviceArgument,
    ProfileSettings,
    ResolutionsOption,
    SeedOption,
    SpaceOption,
    resolve,
    save_table,
    show_table,
)

__all__ = ["register"]

app = typer.Typer(help="Look at latency tables.", no_args_is_help=True, rich_markup_mode=None)

TableArgument = Annotated[
    str,
    typer.Argument(metavar="TABLE", help="A shipped name (`hwnas table list`) or a .json file."),
]


def register(parent: typer.Typer) -> None:
    """Add the verb to the command line."""
    parent.add_typer(app, name="table")


@app.command("list")
def list_tables(
    run: Annotated[Path | None, typer.Option("--run", help="Also those of a run folder.")] = None,
    format: FormatOption = Format.table,
) -> None:
    """Shipped tables, and those of a run folder. Example: `hwnas table list --format json`."""
    from hwnas.core.resources import resource
    from hwnas.latency.table import LatencyTable

    folders = [resource("latency_tables"), *([run / "tables"] if run is not None else [])]
    rows = []
    for path in (path for folder in folders for path in sorted(folder.glob("*.json"))):
        table = LatencyTable.load(path)
        rows.append(
            {
                "table": str(path) if run is not None and run in path.parents else path.stem,
                "device": table.device.name,
                "runtime": table.device.runtime,
                "precision": table.device.precision,
                "n_ops": len(table.rows),
                "spaces": ", ".join(sorted(table.corrections)),
                "source": table.source,
            }
        )
    emit(rows, format=format)


@app.command()
def show(table: TableArgument, format: FormatOption = Format.table) -> None:
    """What a table is of, which spaces it serves, and how good its estimates are."""
    import logging
    import sys
    from math import isfinite

    from hwnas.cli.scatter import scatter
    from hwnas.latency.shipped import latency_table
    from hwnas.measure.tables import served_spaces

    found = latency_table(table)
    served = served_spaces(found)
    for row in served:
        row["interval"] = [end if isfinite(end) else None for end in row["interval"]]
    show_table(found, format, serves=served)
    if format is Format.table:
        if served:
            title = "serves, with any number of classes"
            emit(list(map(_served_row, served)), format=format, title=title)
        else:
            sys.stdout.write("serves no registered space\n")
        for space, correction in sorted(found.corrections.items()):
            nets = correction.validation.nets
            forecast, measured = [n.forecast_ms for n in nets], [n.measured_ms for n in nets]
            drawn = scatter(measured, forecast, x_name="measured ms", y_name="forecast ms")
            sys.stdout.write(f"\n{space}, networks that their forecast has not seen\n{drawn}")
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
    space: Annotated[str, typer.Option("--space", help="A space (`hwnas space list`).")],
    arch: Annotated[
        list[str] | None,
        typer.Option("--arch", help="largest, smallest, codes 0,1,.., a .json file [both ends]."),
    ] = None,
    resolutions: ResolutionsOption = None,
    settings: SpaceSettings = None,
    num_classes: ClassesOption = 1000,
    format: FormatOption = Format.table,
) -> None:
    """Latency of archs with its 90 % interval; the space may be another than the one profiled.

    Example: `hwnas table estimate amd-epyc-2vcpu-mobilenet_v3 --space mobilenet_v3
    --resolutions 160 --num-classes 10`.
    """
    from hwnas.core.config import assignments
    from hwnas.latency.shipped import latency_table
    from hwnas.spaces.load import build_space, read_arch

    given = [*(settings or ()), *([f"resolutions=[{resolutions}]"] if resolutions else ())]
    built = build_space(space, assignments(given), num_classes=num_classes)
    names = arch or ["smallest", "largest"]
    found = latency_table(table).estimate(built, [read_arch(built, name) for name in names])
    high = [end if end < float("inf") else None for end in found.high.tolist()]
    columns = zip(names, found.ms.tolist(), found.low.tolist(), high, strict=True)
    rows = [{"arch": a, "ms": ms, "low": low, "high": top} for a, ms, low, top in columns]
    emit(rows, format=format, title=built.id, space=built.id, correction=found.correction)


@app.command()
def validate(
    table: TableArgument,
    max_mape: Annotated[
        float, typer.Option(help="Largest mean error of forecasts of unseen networks.")
    ] = 0.05,
    max_p95: Annotated[
        float | None, typer.Option(help="Largest error that 95 % of them may stay below.")
    ] = None,
    min_tau: Annotated[
        float | None, typer.Option(help="Least Kendall rank correlation with their timing.")
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Exit 3 if a table's forecasts of unseen networks miss a bound."""
    from hwnas.core.errors import CheckFailed
    from hwnas.latency.shipped import latency_table
    from hwnas.measure.tables import missed_bounds

    found = latency_table(table)
    show_table(found, format)
    missed = missed_bounds(found, max_mape=max_mape, max_p95=max_p95, min_tau=min_tau)
    if missed:
        raise CheckFailed("forecasts miss the bound", found=missed, where=table)


@app.command()
def fit(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder with timed samples.")],
    device: Annotated[str, typer.Option("--device", help="Whose table.")] = "local",
    format: FormatOption = Format.table,
) -> None:
    """Rebuild a run's table from its stored samples; nothing is timed anew."""
    from hwnas.core.progress import silent
    from hwnas.pipeline.project import open_project
    from hwnas.pipeline.stages.profile import refit

    with open_project(run, progress_for=progress_for, command="hwnas table fit") as project:
        show_table(refit(project, device, silent), format)


@app.command()
def convert(
    source: Annotated[str, typer.Argument(metavar="FORMAT", help="pixel1, tfnas or help.")],
    path: Annotated[Path, typer.Argument(help="The published file, or folder of HELP's data.")],
    out: Annotated[Path, typer.Option("--out", help="Table to write.")],
    device: Annotated[
        str | None, typer.Option("--device", help="Column of HELP's data, e.g. gold_6240.")
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Make a table of published latencies; rows are fitted where only whole networks were timed.

    For example ProxylessNAS's Pixel 1 table: `table convert pixel1 pixel_trim.yaml --out FILE`.
    """
    from hwnas.measure.published.convert import convert as read_published

    save_table(read_published(source, path, device), out, format)


@app.command()
def diff(first: TableArgument, second: TableArgument, format: FormatOption = Format.table) -> None:
    """How two tables relate on the operators that both have."""
    from hwnas.latency.shipped import latency_table
    from hwnas.measure.tables import compare_tables

    relation = compare_tables(latency_table(first), latency_table(second))
    if format is Format.json:
        emit([relation], format=format)
        return
    shown = {**relation, "most_changed": "\n".join(relation["most_changed"])}
    emit([{"of B to A": k, "value": v} for k, v in shown.items()], format=format)


@app.command()
def merge(
    tables: Annotated[list[str], typer.Argument(metavar="TABLE...", help="Two or more.")],
    out: Annotated[Path, typer.Option("--out", help="Table to write.")],
    format: FormatOption = Format.table,
) -> None:
    """Rows and corrections of all; the first that has one wins.

    Refused unless device, precision, batch, threads, runtime version and protocol are equal.
    """
    from functools import reduce

    from hwnas.latency.shipped import latency_table
    from hwnas.latency.table import LatencyTable

    save_table(reduce(LatencyTable.merge, map(latency_table, tables)), out, format)


@app.command()
def transfer(
    device: DeviceArgument,
    known: Annotated[
        list[str],
        typer.Option("--from", metavar="TABLE", help="Table of a known device; may be repeated."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Table to write.")],
    space: SpaceOption = None,
    resolutions: ResolutionsOption = None,
    settings: SpaceSettings = None,
    num_classes: ClassesOption = 1000,
    profile_settings: ProfileSettings = None,
    n: Annotated[int, typer.Option("--n", min=5, help="Whole networks to time.")] = 10,
    seed: SeedOption = 0,
    format: FormatOption = Format.table,
    dry_run: DryRunOption = False,
) -> None:
    """A table for a new device from tables of others and a few whole networks timed on it.

    Which networks are timed is chosen by the known tables; `--dry-run` shows them.
    """
    from hwnas.latency.shipped import latency_table
    from hwnas.measure.transfer import networks_to_time, transfer_table

    built, spec, knobs, transport = resolve(
        device, space, resolutions, settings, num_classes, profile_settings
    )
    tables = [latency_table(name) for name in known]
    if dry_run:
        nets = networks_to_time(tables, built, n=n, seed=seed)
        rows = [{"network": i, "codes": ",".join(map(str, net))} for i, net in enumerate(nets)]
        emit(rows, format=format)
        return
    made = transfer_table(
        tables,
        built,
        spec,
        out.with_suffix(".samples"),
        knobs,
        n=n,
        seed=seed,
        progress=progress_for(f"time {spec.name}"),
        transport=transport,
    )
    save_table(made, out, format)
