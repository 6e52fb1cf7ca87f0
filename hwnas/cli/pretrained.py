"""`hwnas pretrained`: published supernets and networks as starting weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml

import hwnas
from hwnas.cli.options import FormatOption
from hwnas.cli.output import Format
from hwnas.cli.shared import show

__all__ = ["register"]

app = typer.Typer(help="Start from published weights.", no_args_is_help=True, rich_markup_mode=None)


def register(parent: typer.Typer) -> None:
    """Adds the verb to the command line."""
    parent.add_typer(app, name="pretrained")


@app.command("list")
def list_published(format: FormatOption = Format.table) -> None:
    """List starting weights with their licences and sources.

    Nothing is downloaded. Example: `hwnas pretrained list`.
    """
    show(hwnas.pretrained_list(), format)


@app.command("import")
def import_file(
    file: Annotated[
        str,
        typer.Argument(help="Path of a downloaded file, or a name from `hwnas pretrained list`."),
    ],
    out: Annotated[Path, typer.Option("--out", help="The .safetensors file to write.")],
    num_classes: Annotated[
        int | None,
        typer.Option(
            "--num-classes", min=1, help="Number of classes of a new head [keep the head]."
        ),
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", help="Licence of the weights [the published one].")
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            "--space",
            help="Space or timm model to which the weights belong [detected from the tensors].",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images", help="Folder of photos, to restore BN statistics of 8-bit networks."
        ),
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Read published weights and write them for the setting `supernet.init`.

    For a file: `hwnas pretrained import ofa_mbv3_d234_e346_k357_w1.0 --out w1.0.safetensors`.
    `timm:NAME` is downloaded from huggingface.co if it is not in the cache.
    """
    found = hwnas.pretrained_import(
        file, out=out, num_classes=num_classes, licence=licence, space=space, images=images
    )
    show(found, format)
    if format is Format.table:
        section = {"space": dict(found.settings), "supernet": {"init": str(out)}}
        sys.stdout.write(yaml.safe_dump(section, sort_keys=False, default_flow_style=None))
