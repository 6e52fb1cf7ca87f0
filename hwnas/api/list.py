"""`hwnas list`: installed variants, and the packages that other variants need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from hwnas.api.result import Listing
from hwnas.core.errors import UserError
from hwnas.core.registry import Variant
from hwnas.core.resources import resource_files

__all__ = ["Kind", "list"]

Kind = Literal[
    "spaces",
    "datasets",
    "samplers",
    "proxies",
    "predictors",
    "readers",
    "searchers",
    "acquisitions",
    "transports",
    "runtimes",
    "exporters",
    "devices",
    "configs",
]


def list(kind: Kind) -> Listing:
    """The variants of a kind, and their missing requirements.

    Raises:
        UserError: no such kind.
    """
    if kind not in get_args(Kind):
        raise UserError(
            "no such kind of variants", expected=f"one of {', '.join(get_args(Kind))}", found=kind
        )
    if kind in ("devices", "configs"):
        folder = "configs/devices" if kind == "devices" else "configs"
        rows = [
            {"name": name, "summary": _header(path.read_text())}
            for name, path in resource_files(folder, ".yaml").items()
        ]
    else:
        rows = [
            {"name": v.name, "summary": v.summary, "available": v.available, "from": v.package}
            for v in _variants(kind)
        ]
    return Listing(rows)


def _variants(kind: Kind) -> Sequence[Variant]:
    """Available variants, then variants of other packages that cannot be used."""
    if kind == "runtimes":
        from hwnas.devices.runtimes import describe_runtime, runtime_names

        return [describe_runtime(name) for name in runtime_names()]
    from hwnas.pipeline.config import REGISTRIES

    registry = next(r for r in REGISTRIES.values() if r.plural == kind)
    return [*map(registry.describe, registry.names), *registry.problems]


def _header(text: str) -> str:
    first = text.split("\n", 1)[0]
    return first.lstrip("# ") if first.startswith("#") else ""
