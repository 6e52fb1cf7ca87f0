"""`--formats all`: every format in every precision, and the packages that are missing."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, get_args

from hwnas.core.command import command_line
from hwnas.core.errors import UserError
from hwnas.exporters import REGISTRY

__all__ = [
    "ALL",
    "every_format",
    "left_out",
    "not_installed",
    "precisions_of",
    "require_fetched",
]

ALL = "all"


def every_format() -> list[dict[str, Any]]:
    """The sections of all formats that can be written here, one for every precision."""
    found: list[dict[str, Any]] = []
    for name in REGISTRY.names:
        if _absent(name):
            continue
        precisions = precisions_of(name)
        found += [{"name": name, "precision": one} for one in precisions] or [{"name": name}]
    return found


def not_installed() -> dict[str, str]:
    """Maps a format and precision (`coreml:fp16`) to what is missing and the command for it."""
    found: dict[str, str] = {}
    for name in REGISTRY.names:
        if reason := _absent(name):
            names = [f"{name}:{one}" for one in precisions_of(name)] or [name]
            found |= dict.fromkeys(names, reason)
    return found


def left_out() -> list[str]:
    """A line for each reason why formats are missing: their names, what they lack, the command."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for name, reason in not_installed().items():
        by_reason[reason].append(name)
    return [f"left out: {', '.join(names)}: {reason}" for reason, names in by_reason.items()]


def require_fetched(name: str) -> None:
    """Refuses a format whose downloaded files are missing.

    Raises:
        UserError: names the command that downloads them.
    """
    if reason := _unfetched(name):
        command = command_line("export", "RUN", "--formats", name, "--fetch")
        raise UserError(
            f"the format {name} needs files that were not downloaded",
            expected="these files in the cache",
            found=reason,
            where=f"the format {name}",
            fix=f"{command} (in Python fetch=True), or remove this format from the formats to"
            " export",
        )


def _absent(name: str) -> str:
    """A package or downloaded files that a format lacks, and the command that installs them.

    Empty if nothing is missing.
    """
    variant = REGISTRY.describe(name)
    if variant.missing:
        return f"{', '.join(variant.missing)} is not installed; {variant.install}"
    if reason := _unfetched(name):
        command = command_line("export", "RUN", "--formats", ALL, "--fetch")
        return f"{reason}; {command} (in Python fetch=True)"
    return ""


def _unfetched(name: str) -> str:
    """Why the format cannot be written before its `fetch`; empty if it can, or has no `fetch`."""
    unfetched = getattr(REGISTRY.declaration(name), "unfetched", None)
    return "" if unfetched is None else str(unfetched())


def precisions_of(name: str) -> tuple[str, ...]:
    """The values of the setting `precision`; empty without such a setting."""
    field = REGISTRY.declaration(name).Config.model_fields.get("precision")
    if field is None:
        return ()
    return tuple(one for one in get_args(field.annotation) if isinstance(one, str))
