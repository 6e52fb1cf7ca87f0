"""Progress reports of long work, independent of how they are shown."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "silent"]


class Progress(Protocol):
    """Called as often as convenient; the receiver throttles. `note` is a short live status."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """`done` of `total` units are finished."""
        ...


def silent(done: int, total: int, note: str = "") -> None:
    """A Progress that shows nothing."""
