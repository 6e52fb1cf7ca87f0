"""`hwnas pretrained`: start from published supernets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import hwnas
from hwnas.cli.options import FormatOption
from hwnas.cli.output import Format
from hwnas.cli.shared import show

__all__ = ["register"]

app = typer.Typer(
    help="Start from published supernets.", no_args_is_help=True, rich_markup_mode=None
)


def register(parent: typer.Typer) -> None:
    """Add the verb to the command line."""
    parent.add_typer(app, name="pretrained")


@app.command("list")
def list_published(format: FormatOption = Format.table) -> None:
    """Published supernets, their licences, and where their authors have them.

    Nothing is downloaded. Example: `hwnas pretrained list`.
    """
    show(hwnas.pretrained_list(), format)


@app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="A file of `hwnas pretrained list`.")],
    out: Annotated[Path, typer.Option("--out", help="The .safetensors file to write.")],
    num_classes: Annotated[
        int | None,
        typer.Option("--num-classes", min=1, help="Of a new head [the file's own head]."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", help="Of the weights [the published one].")
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Read a published supernet and write it for the setting `supernet.init`.

    With its file: `hwnas pretrained import ofa_mbv3_d234_e346_k357_w1.0 --out w1.0.safetensors`.
    """
    found = hwnas.pretrained_import(file, out=out, num_classes=num_classes, licence=licence)
    show(found, format)
    if format is Format.table:
        space = ", ".join(f"{key}: {value}" for key, value in found.settings.items())
        sys.stdout.write(f"space: {{{space}}}\nsupernet: {{init: {out}}}\n")
