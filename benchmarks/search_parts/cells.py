"""Results that survive an interruption: one JSON file per cell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwnas.core.store import read_json, write_json

__all__ = ["Cells", "Settings"]


@dataclass(frozen=True)
class Settings:
    """What the command line says. `seeds` None: the part's own number.

    `retime`: folder for timings of the winners of `steer`; None: they are not timed.
    """

    data: Path
    seeds: int | None
    table: Path | None
    retime: Path | None = None


@dataclass(frozen=True)
class Cells:
    """A folder of results by name."""

    folder: Path

    def get(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The kept result, or a new one, kept before it is returned."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            write_json(path, compute())
        found: dict[str, Any] = read_json(path)
        return found
