"""`hwnas references`: times published networks on a device, with or without a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import hwnas
from hwnas.cli.options import (
    ClassesOption,
    DryRunOption,
    FormatOption,
    SearchOption,
    SetOption,
)
from hwnas.cli.output import Format, progress_for
from hwnas.cli.profile import ProfileSettings, ResolutionsOption
from hwnas.cli.shared import names as parted
from hwnas.cli.shared import show, show_plan, sizes
from hwnas.core.overrides import assignments

__all__ = ["register"]


def register(parent: typer.Typer) -> None:
    """Adds the verb to the command line."""
    parent.command()(references)


# long: every option is declared
def references(
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            help="Without --run: device on which the networks are timed, a name (`hwnas list"
            " devices`) or a YAML file.",
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            readable=False,
            help="Time the networks on the devices of this run, together with its winners.",
        ),
    ] = None,
    names: Annotated[
        str | None,
        typer.Option(
            help="Networks to time, by their names in timm, comma-separated [eight common ones]."
        ),
    ] = None,
    resolutions: ResolutionsOption = None,
    train: Annotated[
        str | None,
        typer.Option(
            help="With --run: networks to fine-tune by the winner's recipe, comma-separated [none]."
        ),
    ] = None,
    num_classes: ClassesOption = None,
    profile_settings: ProfileSettings = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write [DEVICE-references.json].")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="Without --run: seed of the random weights [0]."),
    ] = None,
    search: SearchOption = None,
    settings: SetOption = None,
    format: FormatOption = Format.table,
    dry_run: DryRunOption = False,
) -> None:
    """Time published networks as alternatives to a winner; repeat the command to resume.

    Example: `hwnas references --device local --resolutions 128,224 --dry-run`.
    """
    changes = assignments(settings or ())
    if dry_run and run is not None:
        from hwnas.api.references import references_changes

        planned = references_changes(
            run, parted(names), sizes(resolutions), parted(train), search, changes
        )
        show_plan(run, format, settings=planned, only="references")
        return
    if dry_run:
        from hwnas.api.references import references_plan

        plan = references_plan(
            device=device,
            names=parted(names),
            resolutions=sizes(resolutions),
            train=parted(train),
            num_classes=num_classes,
            profile_settings=assignments(profile_settings or ()),
            search=search,
            settings=changes,
        )
        show(plan, format)
        return
    found = hwnas.references(
        device=device,
        run=run,
        names=parted(names),
        resolutions=sizes(resolutions),
        train=parted(train),
        num_classes=num_classes,
        profile_settings=assignments(profile_settings or ()),
        out=out,
        seed=seed,
        search=search,
        settings=changes,
        progress=progress_for,
    )
    show(found, format)
