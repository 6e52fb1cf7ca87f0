"""`hwnas profile`: measure a device's latency table, locally or remotely."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import hwnas
from hwnas.api.options import refuse_unused
from hwnas.cli.options import (
    ClassesOption,
    DryRunOption,
    FormatOption,
    SpaceSettings,
    config_names,
    device_names,
)
from hwnas.cli.output import Format, progress_for
from hwnas.cli.shared import say_time, show, show_plan, show_table, sizes
from hwnas.core.overrides import assignments

__all__ = [
    "DeviceArgument",
    "ProfileSettings",
    "ResolutionsOption",
    "SeedOption",
    "SpaceOption",
    "job",
    "register",
]


class _DeviceByDefault(TyperGroup):
    """Makes `hwnas profile DEVICE` equal to `hwnas profile device DEVICE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["device", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_DeviceByDefault,
    help="Measure a device's latency table: `hwnas profile DEVICE --space NAME`.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

DeviceArgument = Annotated[
    str,
    typer.Argument(
        metavar="DEVICE",
        autocompletion=device_names,
        help="A name (`hwnas list devices`) or a YAML file.",
    ),
]
SpaceOption = Annotated[
    str | None, typer.Option("--space", help="A name from `hwnas space list`, or a YAML file.")
]
ResolutionsOption = Annotated[
    str | None, typer.Option("--resolutions", help="Input resolutions in px, e.g. 128,160,192.")
]
ProfileSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--profile",
        metavar="KEY=VALUE",
        help="A profiling setting, e.g. rounds=60; may be repeated.",
    ),
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, help="Seed for the selection of the networks to time.")
]


def job(
    space: str | None,
    resolutions: str | None,
    settings: list[str] | None,
    num_classes: int | None,
    profile_settings: list[str] | None,
) -> dict[str, Any]:
    """Converts the options that several verbs share to arguments of `hwnas.profile`."""
    return {
        "space": space,
        "resolutions": sizes(resolutions),
        "settings": assignments(settings or ()),
        "num_classes": num_classes,
        "profile_settings": assignments(profile_settings or ()),
    }


def register(parent: typer.Typer) -> None:
    """Adds the verb to the command line."""
    parent.add_typer(app, name="profile")


# long: every option is declared
@app.command("device")
def device(
    device: DeviceArgument,
    space: SpaceOption = None,
    resolutions: ResolutionsOption = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting of the space; with --run, of the run's configuration.",
        ),
    ] = None,
    num_classes: ClassesOption = None,
    profile_settings: ProfileSettings = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            readable=False,
            help="Measure the table of a run folder, with its space and settings.",
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            autocompletion=config_names,
            help="With --run: configuration (name or path) for a new run folder, or instead of the"
            " stored one.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Table to write [DEVICE.json].")] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="Seed for the selection of the networks to time [0]."),
    ] = None,
    fetch: Annotated[
        bool,
        typer.Option(
            "--fetch",
            help="Download what the device needs (a runtime for its browser, or its Python).",
        ),
    ] = False,
    format: FormatOption = Format.table,
    dry_run: DryRunOption = False,
) -> None:
    """Measure the latency table of a device; if interrupted, the same command resumes.

    Example: `hwnas profile local --space mobilenet_tiny --resolutions 16,24 --dry-run`.
    """
    asked = job(space, resolutions, settings, num_classes, profile_settings)
    if dry_run:
        refuse_unused({"--fetch": fetch}, to="a dry run", fix="leave it out")
    if dry_run and run is not None:
        from hwnas.api.profile_run import device_name, run_changes

        planned = run_changes(device, run, config, **asked, out=out, seed=seed)
        only = f"profile/{device_name(device)}"
        show_plan(run, format, config=config, settings=planned, only=only)
        return
    if dry_run:
        from hwnas.api.profile import profile_plan
        from hwnas.api.profile_run import refuse_config

        refuse_config(config)
        found = profile_plan(device, **asked, out=out)
        show(found, format)
        say_time(found)
        return
    table = hwnas.profile(
        device,
        **asked,
        run=run,
        config=config,
        out=out,
        seed=seed,
        fetch=fetch,
        progress=progress_for,
    )
    show_table(table, format, path=None if run else out or f"{table.device.name}.json")


@app.command("pack")
def pack(
    device: DeviceArgument,
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="Kit to write (.zip), or list of what to time with another tool (.csv)."
        ),
    ],
    space: SpaceOption = None,
    resolutions: ResolutionsOption = None,
    settings: SpaceSettings = None,
    num_classes: ClassesOption = None,
    profile_settings: ProfileSettings = None,
    seed: SeedOption = 0,
    with_runtime: Annotated[
        str | None,
        typer.Option(
            "--with-runtime", metavar="arm64", help="Also pack Python and the runtime for arm64."
        ),
    ] = None,
) -> None:
    """Pack models and the device kit, to time them on a device without hwnas.

    On the device, unzip it and run `python bench.py plan.json --out results.jsonl`. Then import
    results.jsonl. A .csv file lists operators and networks to time with another tool. With
    `--with-runtime arm64` the device needs no Python: run `sh runtime/python3 bench.py ...`. The
    first such `pack` downloads about 50 MB with apt-get and pip.
    """
    path = hwnas.profile_pack(
        device,
        out=out,
        **job(space, resolutions, settings, num_classes, profile_settings),
        seed=seed,
        with_runtime=with_runtime,
        progress=progress_for,
    )
    sys.stdout.write(f"{path}\n")


@app.command("import")
def import_(
    device: DeviceArgument,
    results: Annotated[
        Path,
        typer.Argument(
            help="File that bench.py wrote on the device (.jsonl, or a .zip with it), or a .csv"
            " file with your own timings."
        ),
    ],
    space: SpaceOption = None,
    resolutions: ResolutionsOption = None,
    settings: SpaceSettings = None,
    num_classes: ClassesOption = None,
    profile_settings: ProfileSettings = None,
    out: Annotated[Path | None, typer.Option("--out", help="Table to write [DEVICE.json].")] = None,
    seed: SeedOption = 0,
    format: FormatOption = Format.table,
) -> None:
    """Convert the results of a packed kit to a table; give the same options as for `pack`."""
    table = hwnas.profile_import(
        device,
        results,
        **job(space, resolutions, settings, num_classes, profile_settings),
        out=out,
        seed=seed,
    )
    show_table(table, format, path=out or f"{table.device.name}.json")
