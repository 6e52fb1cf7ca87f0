"""Progress reports of long operations, independent of their display."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "silent"]


class Progress(Protocol):
    """Can be called at any rate, because the receiver throttles. `note` is a short status."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """`done` of `total` units are finished."""
        ...


def silent(done: int, total: int, note: str = "") -> None:
    """A Progress that shows nothing."""
