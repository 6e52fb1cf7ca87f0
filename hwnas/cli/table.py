"""`hwnas table`: look at latency tables, hold them to their promise, carry them over."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli.options import FormatOption, SpaceSettings
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
    """What a table is of, and how good its forecasts are."""
    from hwnas.pipeline.tables import find_table

    show_table(find_table(table), format)


@app.command()
def validate(
    table: TableArgument,
    max_mape: Annotated[
        float, typer.Option(help="Largest mean error of forecasts of unseen networks.")
    ] = 0.05,
    format: FormatOption = Format.table,
) -> None:
    """Exit 3 if a table's forecasts of unseen networks miss the bound."""
    from hwnas.core.errors import CheckFailed, UserError
    from hwnas.pipeline.tables import find_table

    found = find_table(table)
    show_table(found, format)
    if not found.corrections:
        raise UserError("the table was never compared with whole networks", where=table)
    errors = {space: c.validation.forecast.mape for space, c in found.corrections.items()}
    missed = {space: f"{error:.1%}" for space, error in errors.items() if error > max_mape}
    if missed:
        raise CheckFailed(
            "forecasts miss the bound",
            expected=f"mape <= {max_mape:.1%}",
            found=missed,
            where=table,
        )


@app.command()
def fit(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder with timed samples.")],
    device: Annotated[str, typer.Option("--device", help="Whose table.")] = "local",
    format: FormatOption = Format.table,
) -> None:
    """Rebuild a run's table from its stored samples; nothing is timed anew."""
    from hwnas.pipeline.measuring import refit
    from hwnas.pipeline.project import open_project

    with open_project(run, progress_for=progress_for, command="hwnas table fit") as project:
        show_table(refit(project, device), format)


@app.command()
def diff(first: TableArgument, second: TableArgument, format: FormatOption = Format.table) -> None:
    """How two tables relate on the operators that both have."""
    from hwnas.pipeline.tables import compare_tables, find_table

    emit([compare_tables(find_table(first), find_table(second))], format=format)


@app.command()
def transfer(
    table: TableArgument,
    device: DeviceArgument,
    out: Annotated[Path, typer.Option("--out", help="Table to write.")],
    space: SpaceOption = None,
    resolutions: ResolutionsOption = None,
    settings: SpaceSettings = None,
    num_classes: ClassesOption = 1000,
    profile_settings: ProfileSettings = None,
    seed: SeedOption = 0,
    format: FormatOption = Format.table,
) -> None:
    """A table for another device from this one and a few whole networks timed there."""
    from hwnas.pipeline.tables import find_table, transfer_table

    built, spec, knobs = resolve(
        device, space, resolutions, settings, num_classes, profile_settings
    )
    made = transfer_table(
        find_table(table),
        built,
        spec,
        out.with_suffix(".samples"),
        knobs,
        seed=seed,
        progress=progress_for(f"time {spec.name}"),
    )
    save_table(made, out, format)
