"""Latency tables by name: shipped tables and JSON files."""

from __future__ import annotations

from pathlib import Path

from hwnas.core.errors import UserError, did_you_mean
from hwnas.core.resources import SHIPPED_TABLES, resource_files, resource_names
from hwnas.latency.table import LatencyTable

__all__ = ["latency_table", "shipped_table", "shipped_tables"]


def shipped_tables() -> tuple[str, ...]:
    """Sorted names of the tables that ship with hwnas."""
    return resource_names(SHIPPED_TABLES, ".json")


def shipped_table(name: str) -> Path | None:
    """The file of a shipped table; None if no shipped table has this name."""
    return resource_files(SHIPPED_TABLES, ".json").get(name)


def latency_table(name_or_path: str | Path) -> LatencyTable:
    """A shipped table by name, or one from a `.json` file.

    Raises:
        UserError: the table does not exist, or is malformed.
    """
    given = str(name_or_path)
    if given.endswith(".json"):
        return LatencyTable.load(Path(given))
    shipped = resource_files(SHIPPED_TABLES, ".json")
    if given not in shipped:
        measure = "measure one: hwnas profile local --space mobilenet_tiny --out table.json"
        raise UserError(
            f"no latency table {given!r}",
            expected=f"a path to a .json file, or one of: {', '.join(shipped) or '(none shipped)'}",
            fix=did_you_mean(given, tuple(shipped), otherwise=measure),
        )
    return LatencyTable.load(shipped[given])
