"""Finds exporters by the name of a format, and opens exported files in their runtimes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwnas.core.config import build_model
from hwnas.exporters import REGISTRY
from hwnas.exporters.artifact import PlannedFormat
from hwnas.exporters.names import section_of
from hwnas.exporters.opened import CannotRunHere
from hwnas.interfaces import Exporter, OpenModel

__all__ = ["exporter", "open_model", "planned"]


def exporter(format: str, **settings: Any) -> Exporter:
    """The exporter of a format (`onnx`, `onnx:int8`) with the given settings of its `Config`.

    Raises:
        UserError: unknown format or setting, or a package that is not installed.
    """
    return planned(format, settings).exporter()


def planned(format: str, settings: Mapping[str, Any]) -> PlannedFormat:
    """A format with its settings, see `exporter`.

    Raises:
        UserError: as `exporter`.
    """
    data = section_of(format, settings)
    config = REGISTRY.load(data["name"]).Config
    return PlannedFormat(build_model(config, data, where=f"settings of the format {format}"))


def open_model(format: str, path: Path, *, threads: int = 1, trust: bool = False) -> OpenModel:
    """Opens a file of a format in its runtime on this host.

    trust: also open a file that this hwnas did not write and that can contain code (see `own`). The
        module of a format with such files has a function `open_trusted`.

    Raises:
        UserError: the file is damaged or has another format.
        CannotRunHere: the format is unknown, this host lacks its runtime or hardware, or the file
            is untrusted and can contain code.
    """
    if format not in REGISTRY.names:
        raise CannotRunHere(
            f"this version of hwnas does not know the format {format!r}",
            expected=f"one of {', '.join(REGISTRY.names)}",
            fix="if a newer hwnas wrote the file, use that version",
        )
    variant = REGISTRY.describe(format)
    if variant.missing:
        names = ", ".join(variant.missing)
        raise CannotRunHere(f"{names} is not installed", fix=variant.install)
    open_trusted = getattr(REGISTRY.load(format), "open_trusted", None)
    if trust and open_trusted is not None:
        trusted: OpenModel = open_trusted(path, threads=threads)
        return trusted
    return exporter(format).open_model(path, threads=threads)
