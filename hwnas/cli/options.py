"""Arguments and options that several verbs share."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli.output import Format

__all__ = [
    "ClassesOption",
    "ClassesTimedOption",
    "ConfigOption",
    "DryRunOption",
    "FormatOption",
    "ReportOnly",
    "RunArgument",
    "SearchOption",
    "SetOption",
    "SpaceSettings",
    "TruthOption",
    "config_names",
    "device_names",
]


def config_names(incomplete: str) -> list[str]:
    """Completions of a configuration for shells: names that ship with hwnas, and paths."""
    return _completions("configs", incomplete)


def device_names(incomplete: str) -> list[str]:
    """Completions of a device for shells: names that ship with hwnas, and paths."""
    return _completions("configs/devices", incomplete)


def _completions(folder: str, incomplete: str) -> list[str]:
    from hwnas.core.resources import resource_names

    names = [name for name in resource_names(folder, ".yaml") if name.startswith(incomplete)]
    around = incomplete[: incomplete.rfind("/") + 1]
    start = glob.escape(incomplete.removeprefix(around))
    paths = Path(around or ".").expanduser().glob(f"{start}*")
    found = [path for path in paths if path.is_dir() or path.suffix in (".yaml", ".yml")]
    return names + sorted(f"{around}{path.name}{'/' * path.is_dir()}" for path in found)


ARCH_FORMS = (
    "`largest`, `smallest`, codes such as 0,2,1, a .json file, or a `notation` as printed by"
    " `hwnas space sample`"
)
"""How an argument can state an arch."""
RunArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", readable=False, help="Run folder, created by `hwnas run` or `--config`."
    ),
]
ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        autocompletion=config_names,
        help="Configuration (name or path) for a new run folder, or instead of the stored one.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated."),
]
SearchOption = Annotated[
    str | None,
    typer.Option("--search", metavar="NAME", help="Name of the search [the last search]."),
]
FormatOption = Annotated[Format, typer.Option("--format", help="Format of the output.")]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Check everything, print what would run and its cost, then stop."
    ),
]
SpaceSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A setting of the space, e.g. resolutions=[16,24]; may be repeated.",
    ),
]
TruthOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--truth",
        help=(
            "Labels file by which the ranking is judged; it must contain archs that RUN has"
            " labelled. Repeat the option to average several files, e.g. one per seed [the labels"
            " of RUN; its stand-alone labels for --ranking supernet]."
        ),
    ),
]
ReportOnly = Annotated[bool, typer.Option("--report-only", help="Exit 0 even if a check failed.")]
ClassesOption = Annotated[
    int | None,
    typer.Option("--num-classes", min=1, help="Number of classes of the networks [1000]."),
]
ClassesTimedOption = Annotated[
    int | None,
    typer.Option(
        "--num-classes",
        min=1,
        help="Number of classes of the networks [as in the table, or 1000].",
    ),
]
