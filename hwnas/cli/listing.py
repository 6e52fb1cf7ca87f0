"""`hwnas list`: what can be chosen, and what is missing to choose it."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import typer

from hwnas.cli.options import FormatOption
from hwnas.cli.output import Format, emit

if TYPE_CHECKING:
    from hwnas.core.registry import Variant

__all__ = ["register"]


class Kind(str, Enum):
    """What is listed."""

    spaces = "spaces"
    datasets = "datasets"
    samplers = "samplers"
    proxies = "proxies"
    predictors = "predictors"
    readers = "readers"
    searchers = "searchers"
    transports = "transports"
    runtimes = "runtimes"
    exporters = "exporters"
    devices = "devices"
    configs = "configs"


def register(parent: typer.Typer) -> None:
    """Add the verb to the command line."""
    parent.command("list")(list_kind)


def list_kind(kind: Kind, format: FormatOption = Format.table) -> None:
    """What can be chosen. Example: `hwnas list searchers`."""
    from hwnas.core.resources import resource, resource_names

    if kind in (Kind.devices, Kind.configs):
        parts = ("configs", "devices") if kind is Kind.devices else ("configs",)
        rows = [
            {"name": name, "summary": _header(resource(*parts, f"{name}.yaml").read_text())}
            for name in resource_names("/".join(parts), ".yaml")
        ]
    else:
        rows = [
            {"name": v.name, "summary": v.summary, "available": v.available, "from": v.package}
            for v in _variants(kind)
        ]
    emit(rows, format=format)


def _variants(kind: Kind) -> list[Variant]:
    """Those that can be chosen, then those of other packages that cannot."""
    if kind is Kind.runtimes:
        from hwnas.devices.runtimes import describe_runtime, runtime_names

        return [describe_runtime(name) for name in runtime_names()]
    from hwnas.pipeline.config import REGISTRIES

    registry = next(r for r in REGISTRIES.values() if r.plural == kind.value)
    return [*map(registry.describe, registry.names), *registry.problems]


def _header(text: str) -> str:
    first = text.split("\n", 1)[0]
    return first.lstrip("# ") if first.startswith("#") else ""
