"""`hwnas profile`: measure a device's latency table, here or far away."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from hwnas.cli.options import DryRunOption, FormatOption, SpaceSettings
from hwnas.cli.output import Format, emit, progress_for
from hwnas.core.errors import UserError

if TYPE_CHECKING:
    from hwnas.interfaces import DeviceSpec, Transport
    from hwnas.latency.sections import ProfileConfig
    from hwnas.latency.table import LatencyTable
    from hwnas.spaces.space import SearchSpace

__all__ = ["register", "resolve", "save_table", "show_table"]


class _DeviceByDefault(TyperGroup):
    """`hwnas profile DEVICE` is `hwnas profile device DEVICE`."""

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
    str, typer.Argument(metavar="DEVICE", help="A name (`hwnas list devices`) or a YAML file.")
]
SpaceOption = Annotated[str | None, typer.Option("--space", help="A space (`hwnas space list`).")]
ResolutionsOption = Annotated[
    str | None, typer.Option("--resolutions", help="Input sizes in px, e.g. 128,160,192.")
]
ClassesOption = Annotated[int, typer.Option("--num-classes", min=1, help="Classes of the head.")]
ProfileSettings = Annotated[
    list[str] | None,
    typer.Option("--profile", metavar="KEY=VALUE", help="A setting of profiling, e.g. rounds=60."),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0)]


def register(parent: typer.Typer) -> None:
    """Add the verb to the command line."""
    parent.add_typer(app, name="profile")


@app.command("device")
def device(
    device: DeviceArgument,
    space: SpaceOption = None,
    resolutions: ResolutionsOption = None,
    settings: SpaceSettings = None,
    num_classes: ClassesOption = 1000,
    profile_settings: ProfileSettings = None,
    run: Annotated[
        Path | None, typer.Option("--run", help="Profile for a run folder, with its settings.")
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", help="With --run: start or replace its config.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Table to write [DEVICE.json].")] = None,
    seed: SeedOption = 0,
    format: FormatOption = Format.table,
    dry_run: DryRunOption = False,
) -> None:
    """Measure a table; interrupted and repeated, it goes on where it was.

    Example: `hwnas profile local --space mobilenet_tiny --resolutions 16,24 --dry-run`.
    """
    if run is not None:
        _profile_for_run(device, run, config, format, dry_run)
        return
    from hwnas.measure.profile import describe_cost, profile

    built, spec, knobs, transport = resolve(
        device, space, resolutions, settings, num_classes, profile_settings
    )
    target = out or Path(f"{spec.name}.json")
    if dry_run:
        cost = describe_cost(built, knobs)
        emit([{"device": spec.name, "space": built.id, "cost": cost}], format=format)
        return
    table = profile(
        built,
        spec,
        target.with_suffix(".samples"),
        knobs,
        seed=seed,
        progress=progress_for(f"profile {spec.name}"),
        transport=transport,
    )
    save_table(table, target, format)


@app.command("pack")
def pack(
    device: DeviceArgument,
    out: Annotated[Path, typer.Option("--out", help="Zip to write.")],
    space: SpaceOption = None,
    resolutions: ResolutionsOption = None,
    settings: SpaceSettings = None,
    num_classes: ClassesOption = 1000,
    profile_settings: ProfileSettings = None,
    seed: SeedOption = 0,
) -> None:
    """Pack models and kit for a device without hwnas.

    There: unzip, then `python bench.py plan.json --out results.jsonl`; bring results.jsonl back.
    """
    import sys

    from hwnas.measure.pack import pack as write_pack

    built, spec, knobs, _ = resolve(
        device, space, resolutions, settings, num_classes, profile_settings
    )
    write_pack(built, spec, knobs, out, seed=seed, progress=progress_for("pack"))
    sys.stdout.write(f"{out}\n")


@app.command("import")
def import_(
    device: DeviceArgument,
    results: Annotated[
        Path, typer.Argument(help="What bench.py wrote on the device, or a zip with it.")
    ],
    space: SpaceOption = None,
    resolutions: ResolutionsOption = None,
    settings: SpaceSettings = None,
    num_classes: ClassesOption = 1000,
    profile_settings: ProfileSettings = None,
    out: Annotated[Path | None, typer.Option("--out", help="Table to write [DEVICE.json].")] = None,
    seed: SeedOption = 0,
    format: FormatOption = Format.table,
) -> None:
    """Turn results of a packed kit into a table; takes the same options as `pack`."""
    from hwnas.measure.pack import import_results

    built, spec, knobs, _ = resolve(
        device, space, resolutions, settings, num_classes, profile_settings
    )
    table = import_results(built, spec, knobs, results, seed=seed)
    save_table(table, out or Path(f"{spec.name}.json"), format)


def resolve(
    device: str,
    space: str | None,
    resolutions: str | None,
    settings: list[str] | None,
    num_classes: int,
    profile_settings: list[str] | None,
) -> tuple[SearchSpace, DeviceSpec, ProfileConfig, Transport]:
    """Space, device, settings of profiling and transport from the options that verbs share."""
    from hwnas.core.config import assignments, build_model, override
    from hwnas.devices.spec import load_device, load_transport
    from hwnas.latency.sections import ProfileConfig
    from hwnas.spaces.load import build_space

    if space is None:
        raise UserError("which space?", expected="--space NAME, or --run RUN")
    given = assignments(settings or ())
    if resolutions is not None:
        given |= assignments([f"resolutions=[{resolutions}]"])
    knobs = build_model(
        ProfileConfig, override({}, assignments(profile_settings or ())), where="--profile"
    )
    built = build_space(space, given, num_classes=num_classes)
    return built, load_device(device), knobs, load_transport(device)


def _profile_for_run(
    device: str, run: Path, config: str | None, format: Format, dry_run: bool
) -> None:
    from hwnas.cli.stages import run_stage
    from hwnas.pipeline.foreign_tables import set_aside_foreign_table

    name = Path(device).stem if Path(device).suffix in (".yaml", ".yml") else device
    run_stage(
        run,
        f"profile/{name}",
        config=config,
        changes={},
        format=format,
        dry_run=dry_run,
        show=lambda project: show_table(project.estimator(name).table, format),
        before=lambda project: set_aside_foreign_table(project, name),
    )


def save_table(table: LatencyTable, path: Path, format: Format) -> None:
    """Write a table and print what it is worth."""
    import logging

    table.save(path)
    show_table(table, format)
    logging.getLogger("hwnas.cli").info("table: %s", path)


def show_table(table: LatencyTable, format: Format, **more: Any) -> None:
    """Print what a table is of, and how good its estimates are; `more` goes into JSON."""
    from hwnas.measure.tables import table_summary

    emit(
        table_summary(table),
        format=format,
        title=f"{table.device.name}: {len(table.rows)} operators, {table.source}",
        device=table.device.name,
        n_ops=len(table.rows),
        source=table.source,
        facts=table.facts,
        warnings=list(table.warnings),
        **more,
    )
