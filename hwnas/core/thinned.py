"""Keeps a bounded number of rows of a stream, evenly spread."""

from __future__ import annotations

import sys
from typing import Generic, TypeVar

__all__ = ["Thinned"]

T = TypeVar("T")
EPSILON = sys.float_info.epsilon


class Thinned(Generic[T]):
    """Keeps at most `at_most` of many rows, each added with a number, such as a training step.

    If there are more rows, the range of the numbers is divided into equal intervals, and the row
    with the largest number of each interval is kept. If rows have equal numbers, the last one
    counts. So the row with the largest number of all is always kept.

    least: the smallest number so far, kept or not.
    """

    def __init__(self, at_most: int) -> None:
        if at_most < 2:
            raise ValueError(f"at_most must be at least 2, found {at_most}")
        self.least: float | None = None
        self._at_most, self._width = at_most, 0.0
        self._kept: dict[float, tuple[float, T]] = {}

    def add(self, at: float, row: T) -> None:
        """Adds one row."""
        self.least = at if self.least is None else min(at, self.least)
        self._put(at, row)
        while len(self._kept) > self._at_most:
            rows = self.items()
            low, high = float(rows[0][0]), float(rows[-1][0])
            rounding = EPSILON * max(-low, high)  # large integers may be equal as floats
            self._width = max(2 * self._width, 2 * (high - low) / self._at_most, rounding)
            self._kept = {}
            for one in rows:
                self._put(*one)

    def _put(self, at: float, row: T) -> None:
        interval = at // self._width if self._width else at
        kept = self._kept.get(interval)
        if kept is None or at >= kept[0]:
            self._kept[interval] = at, row

    def items(self) -> list[tuple[float, T]]:
        """The kept rows with their numbers, ascending."""
        return sorted(self._kept.values(), key=lambda one: one[0])
