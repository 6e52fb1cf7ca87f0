"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli.output import Format

__all__ = [
    "ClassesOption",
    "ConfigOption",
    "DryRunOption",
    "FormatOption",
    "ReportOnly",
    "RunArgument",
    "SearchOption",
    "SetOption",
    "SpaceSettings",
]

RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="Run folder (made by `hwnas run` or `--config`).")
]
ConfigOption = Annotated[
    str | None,
    typer.Option("--config", help="Start or replace the run folder's config: a name or a path."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a config key; may be repeated."),
]
SearchOption = Annotated[
    str | None, typer.Option("--search", metavar="NAME", help="Which search [the last one].")
]
FormatOption = Annotated[Format, typer.Option("--format", help="How the result is printed.")]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Check it all, print what would run and what it costs; do nothing."
    ),
]
SpaceSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="A parameter of the space, e.g. resolutions=[16,24]."
    ),
]
ReportOnly = Annotated[
    bool, typer.Option("--report-only", help="Exit 0 even if a check fell short; say so only.")
]
ClassesOption = Annotated[
    int | None, typer.Option("--num-classes", min=1, help="Classes of the head [1000].")
]
