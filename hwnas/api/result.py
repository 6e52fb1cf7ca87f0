"""What public functions return where no richer record exists: rows, and facts about all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hwnas.core.progress import Progress, silent

__all__ = ["Folder", "Listing", "ProgressFor", "Result", "Row", "Settings", "no_progress"]

Row = Mapping[str, Any]
Folder = Path | str
Settings = Mapping[str, Any] | None
"""Changes by key path, e.g. `{"train.steps": 50}`; `--set` on the command line."""

ProgressFor = Callable[[str], Progress]
"""Given the name of a stage, how its progress is shown."""


def no_progress(stage: str) -> Progress:
    """Shows nothing."""
    return silent


class Result(Protocol):
    """What a verb prints: `to_dict()` as JSON; its `"table"` under `title` as a table."""

    @property
    def title(self) -> str:
        """Headline of the table; may be empty."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the rows are under `"table"`."""
        ...


@dataclass(frozen=True)
class Listing:
    """JSON-ready rows with named columns, and facts about all of them.

    shown: the rows as a terminal shows them, where `rows` are too wide for one.
    """

    rows: Sequence[Row]
    title: str = ""
    facts: Row = field(default_factory=dict)
    shown: Sequence[Row] = ()

    def __str__(self) -> str:
        rows = (", ".join(f"{k}: {v}" for k, v in row.items()) for row in self.shown or self.rows)
        return "\n".join([*([self.title] if self.title else []), *rows])

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Row:
        return self.rows[row]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the rows are under `"table"`."""
        return {"table": [dict(row) for row in self.rows], **self.facts}
