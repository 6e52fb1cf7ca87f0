"""`hwnas config`: lists and explains settings, and shows the values of a file."""

from __future__ import annotations

import json
from typing import Annotated

import typer

import hwnas
from hwnas.cli.options import FormatOption, SetOption, config_names
from hwnas.cli.output import Format
from hwnas.cli.shared import show as show_result
from hwnas.core.overrides import assignments

__all__ = ["register"]

app = typer.Typer(help="List and explain settings.", no_args_is_help=True, rich_markup_mode=None)


def register(parent: typer.Typer) -> None:
    """Adds the verb to the command line."""
    parent.add_typer(app, name="config")


@app.command()
def show(
    config: Annotated[
        str,
        typer.Argument(
            autocompletion=config_names,
            help="A YAML file, a name from `hwnas list configs`, or a run folder.",
        ),
    ],
    settings: SetOption = None,
    format: FormatOption = Format.table,
) -> None:
    """Show all settings, and whether each value is from the file or a default.

    Example: `hwnas config show quickstart --set train.steps=50`.
    """
    show_result(hwnas.config_show(config, settings=assignments(settings or ())), format)


@app.command()
def explain(
    key: Annotated[
        str | None,
        typer.Argument(help="Key of a setting or a section, e.g. train.steps [all]."),
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Show type, default, allowed values and meaning. Example: `hwnas config explain seed`."""
    show_result(hwnas.config_explain(key), format)


@app.command()
def schema() -> None:
    """Print the JSON Schema of configurations, for editors.

    Example: `hwnas config schema`. Write it to hwnas.schema.json, and begin a YAML file with
    `# yaml-language-server: $schema=hwnas.schema.json`.
    """
    typer.echo(json.dumps(hwnas.config_schema(), indent=1))
