"""What all parts share: a cell is a key, and a function that measures the rest of its row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["Cell", "Cells"]

Cell = dict[str, Any]
Cells = Iterator[tuple[Cell, Callable[[], Cell]]]
